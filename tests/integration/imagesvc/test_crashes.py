"""What a crash leaves at each step of an upload, an import and a deletion, and what the next leader makes of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from moln.image.v1.image_pb2 import ImageDesired, ImageIntent, ImageSource, ImageSpec, ImageState, ImageStatus
from moln.image.v1.image_service_pb2 import CreateImageRequest, UploadImageRequest
from services.common.rpc import connect, read_service_secret, secret_headers
from services.common.store import Txn, key
from tests.integration.imagesvc.conftest import (
    ADMIN,
    READY,
    Cloud,
    Images,
    Shelves,
    Start,
    files_of,
    raw_disk,
)
from tests.support.etcd import EtcdServer
from tests.support.eventually import eventually
from tests.support.processes import Processes
from tests.support.reigns import Running, as_caller

PYTHON = ".venv/bin/python"
UID = "0b5c7a52-0000-4000-8000-000000000001"
MARK = ".moln-datastore"


@pytest.fixture
async def prepared(cloud: Cloud, start: Start, shelf: Path) -> Path:
    """A cloud with a datastore whose imagesvc has ended."""
    async with start() as running:
        await eventually(lambda: running.is_leader)
        await Shelves(running).create("default", shelf)
    return shelf


async def keys_of_an_image(
    cloud: Cloud, state: ImageState, source: ImageSource, *, desired: ImageDesired = ImageDesired.IMAGE_DESIRED_READY
) -> None:
    """The keys of image 1, as a process left them that is no more."""
    spec = ImageSpec(uid=UID, name="web", owner_id=1, owner="ada", source=source, size_mib=1, datastore_id=1)
    status = ImageStatus(uid=UID, state=state, format="raw", path=f"{UID}.raw", file_size_bytes=len(raw_disk()))
    txn = Txn().put(key("image", 1, "spec"), spec).put(key("image", 1, "status"), status)
    await cloud.store.commit(txn.put(key("image", 1, "intent"), ImageIntent(uid=UID, desired=desired)))


@contextlib.asynccontextmanager
async def led(start: Start) -> AsyncIterator[Images]:
    async with start() as running:
        await eventually(lambda: running.is_leader)
        yield Images(running)


UPLOAD_LEFT = [
    {f".{UID}.pending"},
    {f".{UID}.pending", f".{UID}.aaaa.part"},
    {f".{UID}.pending", f"{UID}.raw"},
    {f".{UID}.aaaa.part"},
]


@pytest.mark.parametrize("left", UPLOAD_LEFT)
async def test_an_upload_that_died_before_its_keys_is_swept(prepared: Path, start: Start, left: set[str]) -> None:
    for name in left:
        (prepared / name).write_bytes(raw_disk())
    async with led(start):
        await eventually(lambda: files_of(prepared) == [])
    assert (prepared / MARK).exists()


async def test_an_upload_that_died_after_its_keys_is_an_image(cloud: Cloud, prepared: Path, start: Start) -> None:
    await keys_of_an_image(cloud, READY, ImageSource.IMAGE_SOURCE_UPLOAD)
    (prepared / f"{UID}.raw").write_bytes(raw_disk())
    (prepared / f".{UID}.pending").touch()
    async with led(start) as images:
        await eventually(lambda: files_of(prepared) == [f"{UID}.raw"])
        vm = await cloud.vm(1)
        await eventually(lambda: cloud.sources(vm))
        assert (await images.get(1)).view.state == READY


async def test_files_that_are_not_the_services_own_unfinished_work_are_left_alone(prepared: Path, start: Start) -> None:
    names = ["other.qcow2", "notes.txt", ".hidden", f"{UID}.qcow2"]
    for name in names:
        (prepared / name).write_text("mine")
    async with led(start) as images:
        await images.upload("web", raw_disk())
    assert set(names) <= set(files_of(prepared))


@pytest.mark.parametrize("left", [set(), {f".{UID}.aaaa.part"}, {f"{UID}.raw"}, {f".{UID}.aaaa.part", f"{UID}.raw"}])
async def test_an_import_that_died_is_begun_anew(cloud: Cloud, prepared: Path, start: Start, left: set[str]) -> None:
    for name in left:
        (prepared / name).write_bytes(b"half")
    await keys_of_an_image(cloud, ImageState.IMAGE_STATE_IMPORTING, ImageSource.IMAGE_SOURCE_EMPTY)
    async with led(start) as images:
        made = await images.rested(1)
        assert (made.view.state, made.status.virtual_size_bytes) == (READY, 1 << 20)
        assert f".{UID}.aaaa.part" not in files_of(prepared)
        assert made.status.path in files_of(prepared)


@pytest.mark.parametrize("left", [set(), {f"{UID}.raw"}, {f".{UID}.aaaa.part", f".{UID}.pending"}])
async def test_a_deletion_that_died_goes_on(cloud: Cloud, prepared: Path, start: Start, left: set[str]) -> None:
    for name in left:
        (prepared / name).write_bytes(raw_disk())
    deleted = ImageDesired.IMAGE_DESIRED_DELETED
    await keys_of_an_image(cloud, READY, ImageSource.IMAGE_SOURCE_UPLOAD, desired=deleted)
    async with led(start):
        await eventually(lambda: cloud.image_keys() == [] and files_of(prepared) == [])


async def test_a_deletion_waits_for_a_datastore_that_is_away(cloud: Cloud, prepared: Path, start: Start) -> None:
    (prepared / f"{UID}.raw").write_bytes(raw_disk())
    deleted = ImageDesired.IMAGE_DESIRED_DELETED
    await keys_of_an_image(cloud, READY, ImageSource.IMAGE_SOURCE_UPLOAD, desired=deleted)
    away = prepared.with_name("away")
    prepared.rename(away)
    async with led(start) as images:
        assert (await images.get(1)).view.state == ImageState.IMAGE_STATE_DELETING
        away.rename(prepared)
        await eventually(lambda: cloud.image_keys() == [] and files_of(prepared) == [])


class Service:
    """imagesvc as a process of its own, to be killed."""

    def __init__(self, running: Processes, etcd: EtcdServer, secret: Path, folder: Path) -> None:
        self._running = running
        self._folder = folder
        self._secret = secret
        self._starts = 0
        self._env = {
            "MOLN_IMAGESVC_ETCD_ENDPOINTS": etcd.endpoint,
            "MOLN_IMAGESVC_LISTEN": "127.0.0.1:0",
            "MOLN_IMAGESVC_METRICS_ADDRESS": "",
            "MOLN_IMAGESVC_SERVICE_SECRET_FILE": str(secret),
        }

    async def start(self) -> None:
        self._starts += 1
        ready = self._folder / f"ready-{self._starts}"
        env = {**self._env, "MOLN_READY_FILE": str(ready)}
        self.process = self._running.start([PYTHON, "-m", "services.imagesvc"], env=env, name="imagesvc")
        await eventually(lambda: ready.exists() or self.process.poll() is not None)
        self.address = json.loads(ready.read_text())["addresses"]["grpc"]
        self.channel = connect(self.address, headers=secret_headers(read_service_secret(self._secret)))
        self.images = Images(Running(run=None, channel=self.channel))  # type: ignore[arg-type]

    async def kill(self) -> None:
        self.process.kill()
        await asyncio.to_thread(self.process.wait)
        await self.channel.close()


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.long)])
async def test_kill_9_at_any_moment_leaves_whole_images_or_none(
    cloud: Cloud, prepared: Path, etcd: EtcdServer, running: Processes, secret_file: Path, folder: Path, seed: int
) -> None:
    chance = random.Random(seed)
    service = Service(running, etcd, secret_file, folder)
    await service.start()
    for attempt in range(2):
        await eventually(lambda: cloud.store.leader_address("imagesvc") == service.address)
        await _kill_amid_uploads(service, prepared, attempt, chance.randint(1, 4))
        await service.start()
    await eventually(lambda: cloud.store.leader_address("imagesvc") == service.address)
    listed = (await service.images.list()).images
    expected = {image.status.path for image in listed}
    await eventually(lambda: set(files_of(prepared)) == expected, what="files are those of the images")
    for image in listed:
        assert image.view.state == READY
        assert (prepared / image.status.path).read_bytes() == raw_disk()
    await service.kill()


async def _kill_amid_uploads(service: Service, shelf: Path, attempt: int, files: int) -> None:
    """Begins four uploads and kills the service once that many files have come."""
    before = len(files_of(shelf))
    async with asyncio.TaskGroup() as group:
        uploads = [group.create_task(_try_upload(service, f"i{attempt}-{number}")) for number in range(4)]
        await eventually(lambda: len(files_of(shelf)) - before >= files or all(upload.done() for upload in uploads))
        await service.kill()


async def _try_upload(service: Service, name: str) -> None:
    with contextlib.suppress(grpc.RpcError, asyncio.CancelledError):
        first = UploadImageRequest(image=CreateImageRequest(name=name))
        messages = [first, UploadImageRequest(data=raw_disk()), UploadImageRequest(is_last=True)]
        await service.images.stub.UploadImage(iter(messages), metadata=as_caller(ADMIN), timeout=20)
