"""Plans of a move's target and of a start from a datastore: ended from anywhere, undone wherever they fail."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from moln.compute.v1 import vm_pb2
from moln.compute.v1.vm_pb2 import SavedFile
from moln.image.v1.image_data_service_pb2 import DownloadVolumeRequest
from moln.node.v1.node_service_pb2 import DataTicket, FetchFileRequest, VmOrder
from services.hostagent.drivers.libvirt.compose import Endpoint
from services.hostagent.drivers.libvirt.connection import LibvirtConnection
from services.hostagent.drivers.libvirt.guests import Guests
from services.hostagent.drivers.libvirt.migration import Migration
from services.hostagent.drivers.libvirt.operations.base import Tools
from services.hostagent.drivers.libvirt.saving import Saving
from services.hostagent.drivers.libvirt.transfer import Transfer
from services.hostagent.drivers.plans import Step, run_plan
from services.hostagent.network.bridges import Bridges
from services.hostagent.network.spec import bridges_of
from services.hostagent.storage import qemu_img
from services.hostagent.storage.cache import ImageCache
from services.hostagent.storage.disks import DiskMaker
from services.hostagent.storage.folders import NodeFolders, VmRecord
from services.hostagent.storage.volumes import VolumeStore
from tests.integration.hostagent.libvirt.conftest import pieces_of
from tests.integration.hostagent.libvirt.test_start_plan import Failing
from tests.support.hypervisor import CLOUD, add_nic, order

Plan = Callable[[], list[Step]]


class Files(VolumeStore):
    """Stands for imagesvc and for the other node: hands out one disk and one memory."""

    def __init__(self, disk: bytes, memory: bytes) -> None:
        self._content = {False: disk, True: memory}

    async def download(self, ticket: DataTicket, request: DownloadVolumeRequest) -> AsyncIterator[bytes]:
        """What imagesvc would send."""
        yield self._content[request.is_memory][request.offset :]

    async def fetch(self, address: str, ticket: str, request: FetchFileRequest) -> AsyncIterator[bytes]:
        """What the node would send."""
        yield self._content[request.is_memory][request.offset :]


@pytest.fixture
async def tools(uri: str, folder: Path, bridge: str) -> AsyncIterator[Tools]:
    await qemu_img.create_blank(folder / "moved.qcow2", "qcow2", 2**20)
    connection = LibvirtConnection(uri)
    folders, bridges = NodeFolders(folder / "node", 1), Bridges()
    folders.make()
    disks = DiskMaker(ImageCache(folders.cache), pieces_of(folder))
    volumes = Files((folder / "moved.qcow2").read_bytes(), b"memory")
    yield Tools(Guests(connection), folders, disks, bridges, Endpoint(CLOUD, "qemu", "x86_64"), volumes)
    await bridges.release([bridge])
    await connection.close()


@pytest.fixture
def vm(bridge: str) -> VmOrder:
    made = order(None)
    made.spec.template.disks.add(disk_id=0, size_mib=1)
    add_nic(made, "10.98.0.7", bridge=bridge)
    made.move.move.how, made.move.is_target, made.move.peer_host_id = vm_pb2.MOVE_MODE_LIVE, True, 2
    return made


@pytest.fixture(params=["receive", "receive shared", "fetch", "stage"])
def plan(request: pytest.FixtureRequest, tools: Tools, vm: VmOrder, folder: Path) -> Plan:
    """Each plan of its own."""
    disk = (folder / "moved.qcow2").read_bytes()
    saved = SavedFile(disk_id=0, format="qcow2", size_bytes=len(disk), sha256=hashlib.sha256(disk).hexdigest())
    memory = SavedFile(is_memory=True, format="memory", size_bytes=6, sha256=hashlib.sha256(b"memory").hexdigest())
    transfer = Transfer(Saving(tools.guests, tools.guests.live), tools.volumes)
    bridges = bridges_of(vm.addresses.nics)
    if request.param.startswith("receive"):
        is_shared = request.param == "receive shared"
        if is_shared:
            tools.folders.vm(vm.uid).make(VmRecord(vm.vm_id, vm.uid, 1, CLOUD, host_id=2))
        return lambda: Migration().receiving(tools, vm, bridges, is_shared=is_shared)
    tools.folders.vm(vm.uid).make(VmRecord(vm.vm_id, vm.uid, 5, CLOUD, host_id=1))
    if request.param == "fetch":
        vm.move.peer_data_address = "stands for a node"
        vm.move.peer_status.saved.extend([saved, memory])
        return lambda: transfer.fetching(tools, vm, lambda _step, _percent: None)
    vm.volumes.is_in_datastore, vm.volumes.saved_epoch = True, 1
    vm.volumes.disks.add(disk_id=0, saved_sha256=saved.sha256, saved_size_bytes=saved.size_bytes, format="qcow2")
    vm.volumes.memory.CopyFrom(memory)
    return lambda: transfer.staging(tools, vm, lambda _step, _percent: None)


async def test_a_plan_is_ended_from_wherever_it_was_left_and_repeated_without_harm(plan: Plan) -> None:
    steps = plan()
    assert len(steps) >= 2
    for done in range(1, len(steps) + 1):
        assert (await run_plan(steps[:done], lambda _step: None)).is_done
    assert (await run_plan(plan(), lambda _step: None)).is_done


async def test_a_plan_that_fails_after_any_step_leaves_what_was_there_before(
    plan: Plan, tools: Tools, vm: VmOrder
) -> None:
    folder = tools.folders.vm(vm.uid)
    before = sorted(path.name for path in folder.path.iterdir()) if folder.path.exists() else []
    for index in range(len(plan())):
        steps = plan()
        steps[index] = Failing(steps[index])
        outcome = await run_plan(steps, lambda _step: None)
        assert outcome.is_done is (outcome.step == ""), outcome
        if outcome.is_done:  # the step was not needed at all
            for step in reversed(steps):
                await step.undo()
        left = sorted(path.name for path in folder.path.iterdir()) if folder.path.exists() else []
        assert left == before, steps[index].name
