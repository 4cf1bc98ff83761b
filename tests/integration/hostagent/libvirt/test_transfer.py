"""Files of guests on their way, on a real QEMU: from node to node; nothing of them is lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from moln.compute.v1 import vm_pb2
from moln.compute.v1.vm_pb2 import SavedFile
from moln.node.v1 import node_service_pb2_grpc
from moln.node.v1.node_service_pb2 import FetchFileRequest, VmOrder
from moln.node.v1.node_service_pb2_grpc import NodeDataServiceStub
from services.common.domain.reasons import Reason
from services.common.obs.metrics import Metrics
from services.common.rpc import RpcServer, connect
from services.hostagent.drivers.libvirt.driver import DriverOptions, LibvirtDriver
from services.hostagent.drivers.ports import Deed, Power
from services.hostagent.servicers import node_data
from services.hostagent.storage import qemu_img
from services.hostagent.storage.volumes import VolumeStore
from tests.integration.hostagent.libvirt.conftest import pieces_of
from tests.integration.hostagent.libvirt.guests_at_work import answer, count_reaches, counting, last_count, says
from tests.support import hypervisor
from tests.support.deeds import Doer, operation
from tests.support.hypervisor import order
from tests.support.reigns import refusal

pytestmark = pytest.mark.timeout(300)
TICKET = "move:m-1:1:99:signature"


@dataclass
class Node:
    """A node with its data port."""

    driver: LibvirtDriver
    doer: Doer
    state: Path
    address: str

    def disk(self, vm: VmOrder) -> Path:
        return self.state / "vms" / vm.uid / "disk-0.qcow2"


@pytest.fixture
async def nodes(uri: str, folder: Path, datastore: Path) -> AsyncIterator[tuple[Node, Node]]:
    """Two nodes that use one hypervisor, one after the other."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(node(1, uri, folder, datastore))
        yield first, await stack.enter_async_context(node(2, uri, folder, datastore))


@asynccontextmanager
async def node(host_id: int, uri: str, folder: Path, datastore: Path) -> AsyncIterator[Node]:
    state = folder / f"node-{host_id}"
    state.mkdir()
    options = DriverOptions(host_id, hypervisor.CLOUD, state, uri, domain_type="qemu", has_bridges=False)
    async with LibvirtDriver(options, pieces_of(datastore), VolumeStore(connect)) as driver:
        await driver.inventory(host_id, [hypervisor.datastore(datastore)])
        server = RpcServer(Metrics("test"), gate=node_data.gate)
        address = server.listen("127.0.0.1:0")
        servicer = node_data.NodeDataServicer(driver.folders, driver.runs)
        server.add(node_service_pb2_grpc.add_NodeDataServiceServicer_to_server, servicer)
        async with server:
            yield Node(driver, Doer(driver), state, str(address))
            for seen in await driver.look(host_id):
                left = hypervisor.order(None, vm_id=seen.vm_id)
                left.uid, left.host_id = seen.uid, host_id
                await Doer(driver).do(Deed.ERASE, left)


async def test_a_saved_guest_moves_and_counts_on_over_there(nodes: tuple[Node, Node], image: Path) -> None:
    source, target = nodes
    vm = counting(image)
    assert (await source.doer.do(Deed.START, vm)).is_done
    await says(source.driver, vm, " ready")
    await answer(source.driver, vm, "echo mine > /data/kept; sync; echo written-$((1+1))", "written-2")
    assert (await source.doer.do(Deed.SUSPEND, vm)).is_done
    vm.move.ticket = TICKET
    let_go = await source.doer.do(Deed.HAND_OVER, vm)
    assert let_go.is_done
    assert let_go.facts is not None
    assert [file.format for file in let_go.facts.saved] == ["qcow2", "memory"]
    before = await last_count(source.driver, vm)

    there = moved(vm, source, list(let_go.facts.saved))
    fetched = await target.doer.do(Deed.FETCH, there)
    assert fetched.is_done, fetched
    assert await target.doer.power(there) is Power.SAVED
    assert (await target.doer.do(Deed.FETCH, there)).is_done, "repeated all is there"
    assert (await source.doer.do(Deed.ERASE, vm)).is_done
    assert (await target.doer.do(Deed.START, there)).is_done
    assert target.doer.steps[-1] == "restore_guest"
    await count_reaches(target.driver, there, before + 2)
    await answer(target.driver, there, "cat /data/kept; mount | grep -c data", "mine")
    seen = await target.doer.seen(there)
    assert seen is not None
    assert (seen.epoch, seen.host_id) == (2, 2)


async def test_a_disk_that_moves_comes_onto_the_base_that_the_target_has(
    nodes: tuple[Node, Node], image: Path, datastore: Path
) -> None:
    """The target does not see the datastore: it fetches the image once, and the disk refers to that."""
    source, target = nodes
    vm = order(image)
    assert (await source.doer.do(Deed.START, vm)).is_done
    assert (await source.doer.do(Deed.PLUG, vm)).is_done
    vm.move.ticket = TICKET
    let_go = await source.doer.do(Deed.HAND_OVER, vm)
    assert let_go.facts is not None
    (datastore / "image-3").write_bytes(image.read_bytes())
    await target.driver.inventory(2, [])
    there = moved(vm, source, list(let_go.facts.saved))
    there.tickets.add(image_id=3, address="stands for imagesvc", ticket="t")
    assert (await target.doer.do(Deed.FETCH, there)).is_done
    facts = await qemu_img.inspect(target.disk(vm), "qcow2")
    assert facts.backing_file == str((target.state / "cache" / "image-3.qcow2").absolute())


async def test_snapshots_of_disks_move_along(nodes: tuple[Node, Node], image: Path) -> None:
    source, target = nodes
    vm = order(image)
    assert (await source.doer.do(Deed.START, vm)).is_done
    assert (await source.doer.do(Deed.PLUG, vm)).is_done
    create = operation(vm_pb2.OPERATION_KIND_CREATE_SNAPSHOT, snapshot="old")
    assert (await source.doer.operate(vm, create)).is_done
    of_disk = operation(vm_pb2.OPERATION_KIND_CREATE_DISK_SNAPSHOT, disk_id=0, snapshot="own")
    assert (await source.doer.operate(vm, of_disk)).is_done
    let_go = await source.doer.do(Deed.HAND_OVER, vm)
    assert let_go.facts is not None
    there = moved(vm, source, list(let_go.facts.saved))
    vm.move.ticket = TICKET
    assert (await source.doer.do(Deed.HAND_OVER, vm)).is_done
    fetched = await target.doer.do(Deed.FETCH, there)
    assert fetched.facts is not None
    assert [found.name for found in fetched.facts.snapshots] == ["old"]
    assert [(found.disk_id, found.name) for found in fetched.facts.disk_snapshots] == [(0, "own")]
    back = operation(vm_pb2.OPERATION_KIND_REVERT_DISK_SNAPSHOT, disk_id=0, snapshot="own")
    assert (await target.doer.operate(there, back)).is_done


async def test_a_file_that_was_damaged_is_refused_and_nothing_stays(nodes: tuple[Node, Node], image: Path) -> None:
    source, target = nodes
    vm = order(image)
    await source.doer.do(Deed.START, vm)
    await source.doer.do(Deed.PLUG, vm)
    vm.move.ticket = TICKET
    let_go = await source.doer.do(Deed.HAND_OVER, vm)
    assert let_go.facts is not None
    with source.disk(vm).open("r+b") as file:
        file.seek(1000)
        file.write(b"damage")
    failed = await target.doer.do(Deed.FETCH, moved(vm, source, list(let_go.facts.saved)))
    assert (failed.is_done, failed.reason) == (False, Reason.CHECKSUM_MISMATCH)
    assert await target.doer.power(moved(vm, source, [])) is Power.ABSENT
    nowhere = moved(vm, source, list(let_go.facts.saved))
    nowhere.move.peer_data_address = ""
    assert "data_listen" in (await target.doer.do(Deed.FETCH, nowhere)).message


async def test_the_data_port_gives_files_only_for_the_ticket_and_only_while_the_guest_is_off(
    nodes: tuple[Node, Node], image: Path
) -> None:
    source, _target = nodes
    vm = order(image)
    await source.doer.do(Deed.START, vm)
    await source.doer.do(Deed.PLUG, vm)
    channel = connect(source.address)
    assert (await refusal(fetch(channel, vm, TICKET))).reason == "TICKET_INVALID"
    vm.move.ticket = TICKET
    assert (await source.doer.do(Deed.HAND_OVER, vm)).is_done
    whole = await fetch(channel, vm, TICKET)
    assert whole == source.disk(vm).read_bytes()
    assert await fetch(channel, vm, TICKET, offset=1000) == whole[1000:]
    assert (await refusal(fetch(channel, vm, TICKET + "x"))).reason == "TICKET_INVALID"
    assert (await refusal(fetch(channel, vm, TICKET, disk_id=7))).reason == "VM_NOT_FOUND"
    assert (await refusal(fetch(channel, vm, TICKET, offset=1 << 40))).reason == "FIELD_INVALID"
    vm.uid, kept = "../../etc", vm.uid
    assert (await refusal(fetch(channel, vm, TICKET))).reason == "FIELD_INVALID"
    vm.uid = kept
    assert (await source.doer.do(Deed.START, vm)).is_done
    assert (await refusal(fetch(channel, vm, TICKET))).reason == "TICKET_INVALID", "a start takes the offer back"
    running = await source.doer.do(Deed.HAND_OVER, vm)
    assert running.reason is Reason.STATE_FORBIDS
    await channel.close()


async def test_a_fetch_that_was_cut_off_goes_on_where_it_was(nodes: tuple[Node, Node], image: Path) -> None:
    source, target = nodes
    vm = order(image)
    await source.doer.do(Deed.START, vm)
    await source.doer.do(Deed.PLUG, vm)
    vm.move.ticket = TICKET
    let_go = await source.doer.do(Deed.HAND_OVER, vm)
    assert let_go.facts is not None
    there = moved(vm, source, list(let_go.facts.saved))
    part = target.disk(vm).with_name(".disk-0.qcow2.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(source.disk(vm).read_bytes()[:5000])
    assert (await target.doer.do(Deed.FETCH, there)).is_done
    assert not part.exists()


def moved(vm: VmOrder, source: Node, saved: list[SavedFile]) -> VmOrder:
    """The order that the target of a move gets."""
    there = VmOrder.FromString(vm.SerializeToString())
    there.host_id, there.epoch = 2, 2
    there.move.is_target, there.move.peer_host_id, there.move.peer_name = True, 1, "node-1"
    there.move.ticket, there.move.peer_data_address = TICKET, source.address
    there.move.move.epoch = 2
    there.move.peer_status.saved.extend(saved)
    return there


async def fetch(channel: grpc.aio.Channel, vm: VmOrder, ticket: str, *, offset: int = 0, disk_id: int = 0) -> bytes:
    request = FetchFileRequest(vm_id=vm.vm_id, uid=vm.uid, disk_id=disk_id, offset=offset)
    call = NodeDataServiceStub(channel).FetchFile(request, metadata=(("moln-ticket", ticket),))
    return b"".join([piece.data async for piece in call])
