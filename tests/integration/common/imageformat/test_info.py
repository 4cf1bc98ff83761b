"""What image files are, by the real qemu-img."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.imageformat import info
from tests.support.real import programs, real_part

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _real() -> None:
    real_part("qemu-img", programs("qemu-img"))


def make(folder: Path, *words: str) -> Path:
    path = folder / "image"
    subprocess.run(["qemu-img", "create", "-q", *words[:-1], str(path), words[-1]], check=True, cwd=folder)
    return path


def _write(path: Path) -> None:
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write 0 5M", str(path)], check=True, stdout=subprocess.DEVNULL)


async def refusal(path: Path, stated: str = "") -> str:
    with pytest.raises(MolnError) as caught:
        await info(path, stated=stated, what="image web")
    assert caught.value.reason is Reason.IMAGE_INVALID
    assert caught.value.message.startswith("image web cannot be used: ")
    assert str(path) not in caught.value.message
    return caught.value.message


async def test_a_qcow2_image_says_its_virtual_size(folder: Path) -> None:
    facts = await info(make(folder, "-f", "qcow2", "10M"))
    assert (facts.format, facts.virtual_size_bytes) == ("qcow2", 10 * MIB)
    assert facts.file_size_bytes < MIB


async def test_a_raw_image_is_as_large_as_its_file(folder: Path) -> None:
    facts = await info(make(folder, "-f", "raw", "3M"))
    assert (facts.format, facts.virtual_size_bytes, facts.file_size_bytes) == ("raw", 3 * MIB, 3 * MIB)


async def test_a_stated_format_must_be_the_real_one(folder: Path) -> None:
    path = make(folder, "-f", "qcow2", "10M")
    assert (await info(path, stated="qcow2")).format == "qcow2"
    assert "stated to be raw but is qcow2" in await refusal(path, "raw")


async def test_unknown_bytes_are_raw_only_where_that_is_stated(folder: Path) -> None:
    path = folder / "image"
    path.write_bytes(b"x" * 1024)
    assert "not recognised" in await refusal(path)
    assert (await info(path, stated="raw")).virtual_size_bytes == 1024
    path.write_bytes(b"x" * 1000)
    assert "sectors" in await refusal(path, "raw")


async def test_an_image_that_refers_to_other_files_is_refused(folder: Path) -> None:
    (folder / "base").write_bytes(bytes(MIB))
    assert "backing file" in await refusal(make(folder, "-f", "qcow2", "-F", "raw", "-b", str(folder / "base"), "1M"))
    (folder / "image").unlink()
    data = folder / "data"
    assert "another file" in await refusal(make(folder, "-f", "qcow2", "-o", f"data_file={data}", "1M"))


@pytest.mark.parametrize("form", ["vmdk", "vdi", "vhdx", "qed"])
async def test_other_formats_are_refused_by_name(folder: Path, form: str) -> None:
    assert form.upper() in await refusal(make(folder, "-f", form, "1M"))


async def test_a_qcow2_image_that_was_cut_off_is_refused(folder: Path) -> None:
    path = make(folder, "-f", "qcow2", "10M")
    _write(path)
    assert (await info(path)).virtual_size_bytes == 10 * MIB
    whole = path.read_bytes()
    for length in (300, 100_000, 2 * MIB):
        path.write_bytes(whole[:length])
        assert "cut off" in await refusal(path)


async def test_a_file_that_is_not_there_is_refused(folder: Path) -> None:
    assert "cannot be read" in await refusal(folder / "nothing")
