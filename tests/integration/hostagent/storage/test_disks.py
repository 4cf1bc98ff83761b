"""Disks made by the real qemu-img."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from moln.compute.v1.template_pb2 import DiskTemplate
from moln.compute.v1.vm_pb2 import Volume
from moln.image.v1.image_pb2 import Datastore
from moln.node.v1.node_service_pb2 import ImageTicket
from services.common.domain.reasons import Reason
from services.hostagent.storage import qemu_img
from services.hostagent.storage.cache import ImageCache
from services.hostagent.storage.disks import DiskMaker, DiskPlan
from services.hostagent.storage.qemu_img import StorageError
from tests.support.real import programs, real_part

MIB = 2**20


@pytest.fixture(autouse=True)
def real_qemu_img() -> None:
    real_part("qemu-img", programs("qemu-img"))


def facts_of(path: Path) -> dict[str, object]:
    shown = subprocess.run(["qemu-img", "info", "--output=json", path], check=True, capture_output=True)
    found: dict[str, object] = json.loads(shown.stdout)
    return found


async def no_bytes(_ticket: ImageTicket) -> AsyncIterator[bytes]:
    raise AssertionError("nothing is fetched")
    yield b""


async def test_an_overlay_reads_from_its_base_and_may_be_larger(folder: Path) -> None:
    base = folder / "base.raw"
    base.write_bytes(b"moln" + bytes(MIB - 4))
    await qemu_img.create_overlay(folder / "disk.qcow2", base, "raw", 3 * MIB)
    facts = facts_of(folder / "disk.qcow2")
    assert (facts["virtual-size"], facts["backing-filename-format"], facts["backing-filename"]) == (
        3 * MIB, "raw", str(base)
    )  # fmt: skip


async def test_an_image_is_read_as_the_format_that_is_stated_and_no_other(folder: Path) -> None:
    await qemu_img.create_blank(folder / "a.qcow2", "qcow2", MIB)
    assert (await qemu_img.check_standalone(folder / "a.qcow2", "qcow2")).virtual_size_bytes == MIB
    (folder / "text").write_text("this is no image")
    with pytest.raises(StorageError, match="cannot be read as qcow2") as refused:
        await qemu_img.inspect(folder / "text", "qcow2")
    assert refused.value.reason is Reason.IMAGE_INVALID
    with pytest.raises(StorageError, match="'vmdk' is not one of"):
        await qemu_img.inspect(folder / "text", "vmdk")


async def test_an_image_that_points_at_a_file_of_the_node_is_refused(folder: Path) -> None:
    secret = folder / "secret"
    secret.write_bytes(bytes(MIB))
    await qemu_img.create_overlay(folder / "evil.qcow2", secret, "raw")
    with pytest.raises(StorageError, match="refers to another file"):
        await qemu_img.check_standalone(folder / "evil.qcow2", "qcow2")
    make_with_data_file(folder / "evil2.qcow2", secret)
    with pytest.raises(StorageError, match="refers to another file"):
        await qemu_img.check_standalone(folder / "evil2.qcow2", "qcow2")


async def test_a_disk_that_is_there_is_never_made_anew(folder: Path) -> None:
    maker = DiskMaker(ImageCache(folder / "cache"), no_bytes)
    plan = DiskPlan(DiskTemplate(size_mib=1), Volume(), folder / "disk-0.raw", "raw")
    assert await maker.make(plan, lambda _: None)
    plan.path.write_bytes(b"of the guest")
    assert not await maker.make(plan, lambda _: None)
    assert plan.path.read_bytes() == b"of the guest"


async def test_an_empty_disk_can_have_a_file_system(folder: Path) -> None:
    real_part("mke2fs", programs("mke2fs"))
    maker = DiskMaker(ImageCache(folder / "cache"), no_bytes)
    template = DiskTemplate(size_mib=8, filesystem="ext4")
    plan = DiskPlan(template, Volume(), folder / "disk-0.raw", "raw")
    await maker.make(plan, lambda _: None)
    assert plan.path.read_bytes()[1024 + 56 : 1024 + 58] == b"\x53\xef"
    assert [file.name for file in folder.iterdir()] == ["disk-0.raw"]


async def test_a_raw_disk_is_a_whole_copy_of_its_image(folder: Path) -> None:
    datastore = visible(folder)
    await qemu_img.create_blank(folder / "image.qcow2", "qcow2", MIB)
    maker = DiskMaker(ImageCache(folder / "cache"), no_bytes)
    maker.datastores = [datastore]
    plan = DiskPlan(DiskTemplate(size_mib=2), volume(folder / "image.qcow2"), folder / "disk-0.raw", "raw")
    await maker.make(plan, lambda _: None)
    assert plan.path.stat().st_size == 2 * MIB


async def test_a_datastore_is_seen_by_its_mark_and_not_by_its_path(folder: Path) -> None:
    maker = DiskMaker(ImageCache(folder / "cache"), no_bytes)
    datastore = visible(folder)
    maker.datastores = [datastore]
    assert maker.sees(1)
    assert not maker.sees(2)
    (folder / ".moln-datastore").write_text("another cloud's")
    assert not maker.sees(1)


async def test_many_that_want_one_image_fetch_it_once_and_hear_how_far_it_is(folder: Path) -> None:
    await qemu_img.create_blank(folder / "image", "qcow2", MIB)
    content = (folder / "image").read_bytes()
    fetches, heard = 0, list[int]()

    async def fetch(_ticket: ImageTicket) -> AsyncIterator[bytes]:
        nonlocal fetches
        fetches += 1
        for start in range(0, len(content), 4096):
            await asyncio.sleep(0)
            yield content[start : start + 4096]

    maker = DiskMaker(ImageCache(folder / "cache"), fetch)
    wanted = volume(folder / "elsewhere", sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    ticket = ImageTicket(image_id=3)
    plans = [DiskPlan(DiskTemplate(), wanted, folder / f"disk-{n}.qcow2", "qcow2", ticket) for n in range(3)]
    await asyncio.gather(*(maker.make(plan, heard.append) for plan in plans))
    assert fetches == 1
    assert heard[-1] == 100
    assert all(facts_of(plan.path)["backing-filename"] == str(folder / "cache" / "uid-3.qcow2") for plan in plans)


async def test_a_download_that_is_damaged_or_broken_off_leaves_nothing(folder: Path) -> None:
    async def broken(_ticket: ImageTicket) -> AsyncIterator[bytes]:
        yield b"half of it"
        raise StorageError(Reason.STAGING_FAILED, "the line went dead")

    async def damaged(_ticket: ImageTicket) -> AsyncIterator[bytes]:
        yield b"something else"

    for fetch, reason in ((broken, Reason.STAGING_FAILED), (damaged, Reason.CHECKSUM_MISMATCH)):
        maker = DiskMaker(ImageCache(folder / "cache"), fetch)
        plan = DiskPlan(
            DiskTemplate(), volume(folder / "elsewhere", sha256="0" * 64), folder / "d.qcow2", "qcow2", ImageTicket()
        )
        with pytest.raises(StorageError) as failed:
            await maker.make(plan, lambda _: None)
        assert failed.value.reason is reason
    assert [file.name for file in folder.rglob("*")] == ["cache"]


def make_with_data_file(path: Path, data: Path) -> None:
    words: list[str | Path] = ["qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={data}", path, "1M"]
    subprocess.run(words, check=True)


def visible(folder: Path) -> Datastore:
    (folder / ".moln-datastore").write_text("mark\n")
    datastore = Datastore(id=1)
    datastore.spec.path, datastore.status.mark = str(folder), "mark"
    return datastore


def volume(source: Path, *, sha256: str = "", size: int = 0) -> Volume:
    return Volume(
        image_id=3, image_uid="uid-3", source=str(source), source_format="qcow2", datastore_id=1, sha256=sha256,
        file_size_bytes=size, virtual_size_bytes=MIB,
    )  # fmt: skip
