"""A real etcd, a cloud in it, imagesvc in this process, real image files."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from moln.compute.v1.template_pb2 import DiskTemplate, VmTemplate
from moln.compute.v1.vm_pb2 import DesiredState, VmIntent, VmSpec, VmStatus, VmVolumes
from moln.iam.v1.user_pb2 import Role, UserSpec
from moln.image.v1 import datastore_service_pb2, image_service_pb2
from moln.image.v1.datastore_service_pb2_grpc import DatastoreServiceStub
from moln.image.v1.image_pb2 import Datastore, Image, ImageReference, ImageSource, ImageSpec, ImageState
from moln.image.v1.image_service_pb2 import CreateImageRequest, UploadImageRequest
from moln.image.v1.image_service_pb2_grpc import ImageServiceStub
from moln.operations.v1.records_pb2 import CloudRecord
from services.common.domain.caller import Caller, Capability
from services.common.domain.keys import KEYS
from services.common.resources.stored import stored
from services.common.rpc import make_service_secret, read_service_secret
from services.common.store import ProcessInfo, Store, Txn, key
from services.imagesvc.app import main
from services.imagesvc.settings import ImagesvcSettings
from tests.integration.imagesvc.web import Web, web_server
from tests.support.etcd import EtcdServer, etcd
from tests.support.eventually import eventually
from tests.support.real import programs, real_part
from tests.support.reigns import Running, as_caller, serving

__all__ = ["etcd"]

ADMIN = Caller(1, "ada", is_admin=True)
USER = Caller(2, "bob")
TRUSTED = Caller(2, "bob", capabilities=frozenset({str(Capability.HOST_PATH)}))
READY, ERROR = ImageState.IMAGE_STATE_READY, ImageState.IMAGE_STATE_ERROR
PIECE = 256 * 1024


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def raw_disk(size: int = 1 << 20) -> bytes:
    """A raw disk with a boot sector and something in it."""
    return (b"\0" * 510 + b"\x55\xaa" + b"moln" * 1000).ljust(size, b"\0")


@dataclass
class Cloud:
    """Keys in a real etcd: the api and the nodes are played by writing their parts."""

    store: Store
    last_vm: int = field(default=0)

    async def vm(self, *images: int, size_mib: int = 0) -> int:
        """A VM with a disk of each of these images (0: an empty one), referring to them; its id."""
        self.last_vm += 1
        await self.store.commit(self.vm_txn(self.last_vm, images, size_mib))
        return self.last_vm

    def vm_txn(self, vm_id: int, images: Iterable[int], size_mib: int = 0) -> Txn:
        """What the api writes when a VM is created."""
        disks = [DiskTemplate(disk_id=number, image_id=image, size_mib=size_mib) for number, image in enumerate(images)]
        template = VmTemplate(vcpus=1, memory_mib=128, disks=disks)
        spec = VmSpec(uid=f"vm-{vm_id}", name=f"v{vm_id}", owner_id=USER.user_id, template=template)
        intent = VmIntent(
            uid=spec.uid, desired=DesiredState.DESIRED_STATE_RUNNING, generation=1, owner_id=USER.user_id,
            needs_volumes=bool(disks),
        )  # fmt: skip
        txn = Txn().put(key("vm", vm_id, "spec"), spec).put(key("vm", vm_id, "intent"), intent)
        for image in filter(None, images):
            txn.put(key("imageref", image, f"{vm_id:010d}"), ImageReference(vm_uid=spec.uid))
        return txn

    async def terminate(self, vm_id: int) -> None:
        """A user wants a VM gone."""
        entry = self.store.cache.get("vm", vm_id, "intent")
        assert entry is not None
        intent = VmIntent.FromString(entry.raw)
        intent.desired = DesiredState.DESIRED_STATE_TERMINATED
        await self.store.commit(Txn().put(entry.key, intent))

    async def unrefer(self, vm_id: int, image_id: int) -> None:
        """The api's collector removes a VM's reference."""
        await self.store.commit(Txn().delete(key("imageref", image_id, f"{vm_id:010d}")))

    async def status(self, vm_id: int, *, is_there: bool) -> None:
        """A node has something of the VM, or nothing any more."""
        name = key("vm", vm_id, "status/0000000001")
        await self.store.commit(Txn().put(name, VmStatus(uid=f"vm-{vm_id}")) if is_there else Txn().delete(name))

    def volumes(self, vm_id: int) -> VmVolumes | None:
        return stored(self.store.cache.get("vm", vm_id, "volumes"), VmVolumes)

    def sources(self, vm_id: int) -> list[str]:
        """Where the VM's disks come from; empty where it has no volumes."""
        found = self.volumes(vm_id)
        return [disk.source for disk in found.disks] if found else []

    def reason(self, vm_id: int) -> str:
        found = self.volumes(vm_id)
        return found.reason if found else ""

    def image_keys(self) -> list[str]:
        """All keys of images and their names."""
        kinds = {kind: self.store.cache.table(kind) for kind in ("image", "name")}
        found = [
            f"{kind}/{name}/{part}" for kind, table in kinds.items() for name, parts in table.items() for part in parts
        ]
        return [name for name in found if not name.startswith("name/datastore")]


@dataclass
class Images:
    """ImageService as one caller sees it."""

    running: Running
    caller: Caller = ADMIN

    @property
    def stub(self) -> ImageServiceStub:
        return ImageServiceStub(self.running.channel)

    def by(self, caller: Caller) -> Images:
        return Images(self.running, caller)

    async def create(self, name: str, **fields: object) -> Image:
        request = CreateImageRequest(name=name, **fields)  # type: ignore[arg-type]
        return await self.stub.CreateImage(request, metadata=as_caller(self.caller), timeout=30)

    async def ready(self, name: str, **fields: object) -> Image:
        """Creates an image and waits until it rests."""
        made = await self.create(name, **fields)
        return await self.rested(made.id)

    async def rested(self, image_id: int) -> Image:
        async def check() -> Image | None:
            image = await self.get(image_id)
            return image if image.view.state in (READY, ERROR) else None

        found = await eventually(check)
        assert found is not None
        return found

    async def from_url(self, name: str, url: str, **fields: object) -> Image:
        return await self.ready(name, source=ImageSource.IMAGE_SOURCE_URL, location=url, **fields)

    async def upload(
        self, name: str, data: bytes, *, is_whole: bool = True, total: int | None = None, **fields: object
    ) -> Image:
        image = CreateImageRequest(name=name, **fields)  # type: ignore[arg-type]
        first = UploadImageRequest(image=image, total_bytes=len(data) if total is None else total)
        pieces = [UploadImageRequest(data=data[at : at + PIECE]) for at in range(0, len(data), PIECE)]
        return await self.send([first, *pieces, *([UploadImageRequest(is_last=True)] if is_whole else [])])

    async def send(self, messages: list[UploadImageRequest]) -> Image:
        return await self.stub.UploadImage(iter(messages), metadata=as_caller(self.caller), timeout=30)

    async def get(self, image_id: int) -> Image:
        request = image_service_pb2.GetImageRequest(id=image_id)
        return await self.stub.GetImage(request, metadata=as_caller(self.caller))

    async def list(self, **fields: object) -> image_service_pb2.ListImagesResponse:
        request = image_service_pb2.ListImagesRequest(**fields)  # type: ignore[arg-type]
        return await self.stub.ListImages(request, metadata=as_caller(self.caller))

    async def update(self, image_id: int, spec: ImageSpec, *paths: str, etag: str = "") -> Image:
        request = image_service_pb2.UpdateImageRequest(id=image_id, spec=spec, etag=etag)
        request.update_mask.paths.extend(paths)
        return await self.stub.UpdateImage(request, metadata=as_caller(self.caller))

    async def delete(self, image_id: int) -> None:
        request = image_service_pb2.DeleteImageRequest(id=image_id)
        await self.stub.DeleteImage(request, metadata=as_caller(self.caller))


@dataclass
class Shelves:
    """DatastoreService as an administrator sees it."""

    running: Running

    @property
    def stub(self) -> DatastoreServiceStub:
        return DatastoreServiceStub(self.running.channel)

    async def create(self, name: str, path: Path | str, **fields: object) -> Datastore:
        request = datastore_service_pb2.CreateDatastoreRequest(
            name=name,
            kind="directory",
            path=str(path),
            **fields,  # type: ignore[arg-type]
        )
        return await self.stub.CreateDatastore(request, metadata=as_caller(ADMIN))

    async def get(self, datastore_id: int) -> Datastore:
        request = datastore_service_pb2.GetDatastoreRequest(id=datastore_id)
        return await self.stub.GetDatastore(request, metadata=as_caller(ADMIN))

    async def list(self) -> list[Datastore]:
        request = datastore_service_pb2.ListDatastoresRequest()
        return list((await self.stub.ListDatastores(request, metadata=as_caller(ADMIN))).datastores)

    async def delete(self, datastore_id: int) -> None:
        request = datastore_service_pb2.DeleteDatastoreRequest(id=datastore_id)
        await self.stub.DeleteDatastore(request, metadata=as_caller(ADMIN))


Start = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture(autouse=True)
def _real() -> None:
    real_part("qemu-img", programs("qemu-img"))


@pytest.fixture
async def cloud(etcd: EtcdServer) -> AsyncIterator[Cloud]:
    """A cloud with two users and no datastore."""
    store = await Store.open(etcd.settings, keys=KEYS, process=ProcessInfo("api"))
    txn = Txn().put(key("cloud", "settings"), CloudRecord(uid="4f2a9c1e-1111"))
    txn.put(key("user", 1, "spec"), UserSpec(name="ada", role=Role.ROLE_ADMIN))
    await store.commit(txn.put(key("user", 2, "spec"), UserSpec(name="bob", role=Role.ROLE_USER)))
    yield Cloud(store)
    await store.close()


@pytest.fixture
def secret_file(folder: Path) -> Path:
    """The secret that the services share."""
    make_service_secret(folder / "service.secret")
    return folder / "service.secret"


@pytest.fixture
def start(etcd: EtcdServer, secret_file: Path) -> Start:
    """Starts imagesvc in this process; settings by name."""

    def started(**more: object) -> AbstractAsyncContextManager[Running]:
        settings = ImagesvcSettings(
            etcd_endpoints=(etcd.endpoint,), listen="127.0.0.1:0", service_secret_file=secret_file, metrics_address="",
            datastore_interval_s=0.1, **more,  # type: ignore[arg-type]
        )  # fmt: skip
        return serving("imagesvc", main, settings, read_service_secret(secret_file))

    return started


@pytest.fixture
async def imagesvc(cloud: Cloud, start: Start) -> AsyncIterator[Running]:
    """One imagesvc, which leads."""
    async with start() as running:
        await eventually(lambda: running.is_leader)
        yield running


@pytest.fixture
def shelves(imagesvc: Running) -> Shelves:
    """DatastoreService."""
    return Shelves(imagesvc)


@pytest.fixture
def shelf(folder: Path) -> Path:
    """Where the default datastore is."""
    return folder / "datastore"


@pytest.fixture
async def images(imagesvc: Running, shelves: Shelves, shelf: Path) -> Images:
    """ImageService, called by an administrator, with one datastore."""
    made = await shelves.create("default", shelf)
    assert made.status.is_ready, made.status.message
    return Images(imagesvc)


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    """An HTTP server."""
    async with web_server() as served:
        yield served


def files_of(shelf: Path) -> list[str]:
    """Names of all files in a datastore but its mark."""
    return sorted(path.name for path in shelf.iterdir() if path.name != ".moln-datastore")


async def qemu_img(*words: str | Path) -> None:
    """Runs the real qemu-img."""
    await asyncio.to_thread(subprocess.run, ["qemu-img", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


async def qcow2(folder: Path, size: str = "8M", name: str = "disk.qcow2") -> bytes:
    """The bytes of a new qcow2 image."""
    await qemu_img("create", "-q", "-f", "qcow2", folder / name, size)
    return (folder / name).read_bytes()
