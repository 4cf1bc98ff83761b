"""Files of stopped VMs: brought and fetched by ticket; they count when whole, and go when nobody needs them."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from moln.compute.v1 import vm_pb2
from moln.compute.v1.vm_pb2 import DesiredState, SavedFile, VmIntent, VmPlacement, VmStatus, VmVolumes
from moln.image.v1 import image_data_service_pb2 as pb
from moln.image.v1.image_data_service_pb2_grpc import ImageDataServiceStub
from services.common.rpc import connect, read_service_secret
from services.common.rpc.tickets import sign_ticket
from services.common.store import Txn, key
from tests.integration.imagesvc.conftest import USER, Cloud, Images, Shelves, Start, qcow2, raw_disk, sha256
from tests.support.eventually import eventually
from tests.support.reigns import refusal

DISK, MEMORY = raw_disk(3 << 20), b"memory" * 100_000
STOPPED, RUNNING = DesiredState.DESIRED_STATE_STOPPED, DesiredState.DESIRED_STATE_RUNNING


@dataclass
class Node:
    """A node that has a VM, and what the cloud writes of it."""

    channel: grpc.aio.Channel
    secret_file: Path
    cloud: Cloud
    vm: int
    epoch: int = 1
    driver: str = "libvirt"

    @property
    def uid(self) -> str:
        return f"vm-{self.vm}"

    def ticket(self, *, kind: str = "volume", uid: str = "") -> tuple[tuple[str, str], ...]:
        secret = read_service_secret(self.secret_file).encode()
        return (("moln-ticket", sign_ticket(secret, kind, uid or self.uid, 1, int(time.time()) + 60)),)

    async def upload(self, file: SavedFile, data: bytes, *, checksum: str = "", is_whole: bool = True) -> SavedFile:
        def messages() -> Iterator[pb.UploadVolumeRequest]:
            yield pb.UploadVolumeRequest(vm_id=self.vm, uid=self.uid, file=file, epoch=self.epoch)
            for at in range(0, len(data), 1 << 20):
                yield pb.UploadVolumeRequest(data=data[at : at + (1 << 20)])
            if is_whole:
                yield pb.UploadVolumeRequest(sha256=checksum or sha256(data))

        answer = await ImageDataServiceStub(self.channel).UploadVolume(messages(), metadata=self.ticket(), timeout=30)
        return answer.file

    async def bring(self) -> list[SavedFile]:
        """Brings one disk and the memory."""
        disk = await self.upload(SavedFile(disk_id=0, format="qcow2", size_bytes=len(DISK)), DISK)
        return [disk, await self.upload(SavedFile(is_memory=True, format="memory"), MEMORY)]

    async def download(self, *, offset: int = 0, is_memory: bool = False, disk_id: int = 0) -> bytes:
        request = pb.DownloadVolumeRequest(
            vm_id=self.vm, uid=self.uid, offset=offset, is_memory=is_memory, disk_id=disk_id
        )
        call = ImageDataServiceStub(self.channel).DownloadVolume(request, metadata=self.ticket())
        return b"".join([piece.data async for piece in call])

    async def want(self, desired: DesiredState) -> None:
        entry = self.cloud.store.cache.get("vm", self.vm, "intent")
        assert entry is not None
        intent = VmIntent.FromString(entry.raw)
        intent.desired = desired
        await self.cloud.store.commit(Txn().put(entry.key, intent))

    async def report(self, phase: int, saved: list[SavedFile] | None = None, *, has_run: bool = False) -> None:
        """What the node sees, at its epoch."""
        status = VmStatus(uid=self.uid, host_id=1, epoch=self.epoch, phase=phase, driver=self.driver)  # type: ignore[arg-type]
        status.saved.extend(saved or [])
        if has_run:
            status.start_time.GetCurrentTime()
        placement = VmPlacement(uid=self.uid, host_id=1, epoch=self.epoch)
        txn = Txn().put(key("vm", self.vm, "placement"), placement)
        await self.cloud.store.commit(txn.put(key("vm", self.vm, "status/0000000001"), status))

    def volumes(self) -> VmVolumes:
        return self.cloud.volumes(self.vm) or VmVolumes()


@pytest.fixture
async def node(images: Images, cloud: Cloud, secret_file: Path) -> AsyncIterator[Node]:
    vm = await cloud.vm(0, size_mib=3)
    await eventually(lambda: cloud.volumes(vm))
    channel = connect(images.running.run.address)
    yield Node(channel, secret_file, cloud, vm)
    await channel.close()


async def test_what_a_node_has_brought_counts_when_it_says_so_and_comes_back_whole(node: Node, shelf: Path) -> None:
    await node.want(STOPPED)
    files = await node.bring()
    assert not node.volumes().is_in_datastore, "nobody has said that this is all"
    await node.report(vm_pb2.VM_PHASE_SAVED, files)
    await eventually(lambda: node.volumes().is_in_datastore, what="the files count")
    found = node.volumes()
    assert (found.saved_epoch, found.saved_datastore_id, found.memory.sha256) == (1, 1, sha256(MEMORY))
    assert (found.disks[0].saved_sha256, found.disks[0].saved_size_bytes) == (sha256(DISK), len(DISK))
    assert await node.download() == DISK
    assert await node.download(offset=1_000_000) == DISK[1_000_000:]
    assert await node.download(is_memory=True) == MEMORY

    node.epoch = 2
    await node.want(RUNNING)
    await node.report(vm_pb2.VM_PHASE_STARTING)
    await node.report(vm_pb2.VM_PHASE_RUNNING, has_run=True)
    await eventually(lambda: not node.volumes().is_in_datastore, what="they count no more")
    await eventually(lambda: not list((shelf / "saved").iterdir()), what="they are erased")
    found = node.volumes()
    assert not found.HasField("memory")
    assert found.disks[0].saved_sha256 == ""
    assert (await refusal(node.download())).reason == "VM_NOT_FOUND"


async def test_files_that_are_not_what_the_node_names_do_not_count(node: Node, shelf: Path) -> None:
    await node.want(STOPPED)
    files = await node.bring()
    files[0].sha256 = "0" * 64
    await node.report(vm_pb2.VM_PHASE_SAVED, files)
    files[0].sha256 = sha256(DISK)
    stored = next((shelf / "saved" / node.uid / "1").glob("disk-0.*"))
    whole = stored.read_bytes()
    stored.write_bytes(whole[:100])
    await node.report(vm_pb2.VM_PHASE_SAVED, files)
    assert not node.volumes().is_in_datastore
    stored.write_bytes(whole)
    await node.report(vm_pb2.VM_PHASE_SAVED, files)
    await eventually(lambda: node.volumes().is_in_datastore, what="the files count")


async def test_an_upload_that_is_damaged_or_cut_off_leaves_nothing(node: Node, shelf: Path) -> None:
    file = SavedFile(disk_id=0, format="qcow2")
    assert (await refusal(node.upload(file, DISK, checksum="1" * 64))).reason == "CHECKSUM_MISMATCH"
    assert (await refusal(node.upload(file, DISK, is_whole=False))).reason == "UPLOAD_INCOMPLETE"
    assert (await refusal(node.upload(SavedFile(format="vmdk"), DISK))).reason == "FIELD_INVALID"
    huge = SavedFile(disk_id=0, format="qcow2", size_bytes=1 << 60)
    assert (await refusal(node.upload(huge, DISK))).reason in ("DATASTORE_FULL", "IMAGE_INVALID")
    assert [path for path in (shelf / "saved").rglob("*") if path.is_file()] == []


async def test_a_file_that_is_brought_again_takes_the_place_of_the_former(node: Node, shelf: Path) -> None:
    await node.upload(SavedFile(disk_id=0, format="qcow2"), DISK)
    await node.upload(SavedFile(disk_id=0, format="qcow2"), MEMORY)
    assert [path.name for path in (shelf / "saved" / node.uid / "1").iterdir()] == [f"disk-0.{sha256(MEMORY)}"]


async def test_no_other_ticket_will_do(node: Node) -> None:
    stub = ImageDataServiceStub(node.channel)
    first = pb.UploadVolumeRequest(vm_id=node.vm, uid=node.uid, file=SavedFile(format="raw"), epoch=1)
    for ticket in (node.ticket(kind="image"), node.ticket(uid="vm-99"), (("moln-ticket", "x"),)):
        assert (await refusal(stub.UploadVolume(iter([first]), metadata=ticket))).reason == "TICKET_INVALID"
    stranger = Node(node.channel, node.secret_file, node.cloud, 99)
    assert (await refusal(stranger.upload(SavedFile(format="raw"), b""))).reason == "VM_NOT_FOUND"


async def test_a_simulated_node_has_no_files_and_is_believed(node: Node) -> None:
    node.driver = "sim"
    await node.want(STOPPED)
    await node.report(vm_pb2.VM_PHASE_SAVED, [SavedFile(disk_id=0, sha256="0" * 64)])
    await eventually(lambda: node.volumes().is_in_datastore, what="the word counts")


async def test_a_vm_that_goes_on_where_it_was_stopped_drops_what_it_brought(node: Node, shelf: Path) -> None:
    await node.want(STOPPED)
    await node.report(vm_pb2.VM_PHASE_SAVED, await node.bring())
    await eventually(lambda: node.volumes().is_in_datastore)
    await node.want(RUNNING)
    await node.report(vm_pb2.VM_PHASE_RUNNING, has_run=True)
    await eventually(lambda: not node.volumes().is_in_datastore)
    await eventually(lambda: not list((shelf / "saved").iterdir()))


async def test_what_a_crash_left_is_settled_by_the_next_leader(
    cloud: Cloud, start: Start, secret_file: Path, shelf: Path
) -> None:
    async with start() as first:
        await eventually(lambda: first.is_leader)
        await Shelves(first).create("default", shelf)
        kept, gone = await cloud.vm(0, size_mib=3), await cloud.vm(0, size_mib=3)
        await eventually(lambda: cloud.volumes(gone))
        channel = connect(first.run.address)
        nodes = [Node(channel, secret_file, cloud, vm) for vm in (kept, gone)]
        files = [await node.bring() for node in nodes]
        await channel.close()
    for node in nodes:
        await node.want(STOPPED)
        await node.report(vm_pb2.VM_PHASE_SAVED, files[0])
    txn = Txn()
    for part in ("spec", "intent", "volumes", "placement", "status/0000000001"):
        txn.delete(key("vm", gone, part))
    await cloud.store.commit(txn)
    for path in (shelf / "saved" / f"vm-{gone}").iterdir():
        os.utime(path, (0, 0))
    async with start() as second:
        await eventually(lambda: second.is_leader)
        await eventually(lambda: nodes[0].volumes().is_in_datastore, what="the other's files count")
        await eventually(lambda: not (shelf / "saved" / f"vm-{gone}").exists(), what="those of the VM that is gone go")
        assert (shelf / "saved" / f"vm-{kept}").exists()


async def test_a_disk_becomes_an_image_of_the_owner_once(node: Node, images: Images, folder: Path) -> None:
    data = await qcow2(folder)
    stub = ImageDataServiceStub(node.channel)

    async def save(name: str, operation_id: str = "op-1") -> int:
        messages = [
            pb.UploadDiskRequest(vm_id=node.vm, uid=node.uid, operation_id=operation_id, name=name, format="qcow2"),
            pb.UploadDiskRequest(data=data), pb.UploadDiskRequest(sha256=sha256(data)),
        ]  # fmt: skip
        return (await stub.UploadDisk(iter(messages), metadata=node.ticket(), timeout=30)).image_id

    image_id = await save("golden")
    made = await images.by(USER).get(image_id)
    assert (made.spec.name, made.spec.owner_id, made.status.sha256) == ("golden", USER.user_id, sha256(data))
    assert await save("golden") == image_id, "the same operation makes it once"
    assert (await refusal(save("golden", "op-2"))).reason == "NAME_TAKEN"
