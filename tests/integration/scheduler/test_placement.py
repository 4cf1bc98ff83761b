"""Placement against a real etcd: what is bound, what waits and why, what is given back."""

from __future__ import annotations

from collections import Counter

from moln.compute.v1 import host_pb2, template_pb2, vm_pb2
from services.common.store import Change, Txn, key
from tests.integration.scheduler.conftest import Running, Start
from tests.integration.scheduler.world import World, template
from tests.support.eventually import eventually

CONNECTED, SILENT, FENCED = (
    host_pb2.LIVENESS_STATE_CONNECTED, host_pb2.LIVENESS_STATE_SILENT, host_pb2.LIVENESS_STATE_FENCED,
)  # fmt: skip


async def test_a_vm_that_fits_gets_a_host(world: World, scheduler: Running) -> None:
    await world.host(1)
    await world.vm(1, template(256, disks=[template_pb2.DiskTemplate(size_mib=10)]))
    await eventually(lambda: world.host_of(1) == 1)
    placement = world.placement(1)
    assert placement is not None
    assert placement.uid == "vm-1"
    assert placement.epoch == 1
    assert placement.granted == vm_pb2.Granted(vcpus=1, cpu_percent=100, memory_mib=256, disk_mib=10)
    assert placement.cause.actor == "<scheduler>"
    assert placement.time.seconds > 0
    assert not placement.HasField("pending")


async def test_a_burst_is_bound_once_each_and_spread_evenly(world: World, scheduler: Running) -> None:
    written: Counter[str] = Counter()

    def count(changes: object, _revision: int) -> None:
        assert isinstance(changes, list | tuple)
        written.update(each.id for each in changes if isinstance(each, Change) and each.part == "placement")

    world.store.cache.subscribe(count, {"vm"})
    for host_id in range(1, 11):
        await world.host(host_id, cpus=40)
    await world.vms(range(1, 301))
    await eventually(lambda: len(world.placed()) == 300)
    assert set(Counter(world.placed().values()).values()) == {30}
    assert set(written.values()) == {1}
    assert all((placement := world.placement(vm_id)) and placement.epoch == 1 for vm_id in range(1, 301))


async def test_no_host_is_overfilled_and_the_rest_is_told_why(world: World, scheduler: Running) -> None:
    for host_id in range(1, 4):
        await world.host(host_id, cpus=4, memory_mib=1024)
    await world.vms(range(1, 21))
    await eventually(lambda: len(world.placed()) == 12)
    assert set(Counter(world.placed().values()).values()) == {4}
    waiting = sorted(set(range(1, 21)) - set(world.placed()))
    await eventually(lambda: all(world.pending(vm_id)[0] == "NO_HOST_FITS" for vm_id in waiting))
    assert world.pending(waiting[0])[1] == "3 hosts: 3 enabled, 0 have 100 % of CPU free"
    assert waiting == list(range(13, 21)), "the oldest come first"
    await eventually(lambda: scheduler.metric("pending_vms", reason="NO_HOST_FITS") == 8)


async def test_without_hosts_a_vm_is_told_so_and_is_bound_when_one_comes(world: World, scheduler: Running) -> None:
    await world.vm(1)
    await eventually(lambda: world.pending(1)[0] == "NO_HOSTS")
    assert "moln host create" in world.pending(1)[1]
    await world.host(1)
    await eventually(lambda: world.host_of(1) == 1)
    assert world.pending(1) == ("", "")


async def test_the_reason_counts_what_each_filter_left(world: World, scheduler: Running) -> None:
    for host_id in range(1, 6):
        await world.host(host_id, labels={"disk": "ssd"} if host_id < 4 else {}, taints=["gpu"] if host_id == 3 else [])
    await world.mode(1, host_pb2.HOST_MODE_DISABLED)
    await world.vm(1, template(16384, requirement='LABEL_DISK = "ssd"'))
    await eventually(lambda: world.pending(1)[0] == "NO_HOST_FITS")
    assert world.pending(1)[1] == (
        "5 hosts: 4 enabled, 3 without a taint that is not tolerated, 1 match the requirement, 0 have 16384 MiB free"
    )


async def test_an_attribute_that_no_host_has_is_named(world: World, scheduler: Running) -> None:
    await world.host(1)
    await world.vm(1, template(requirement="LABEL_DISC = ssd"))
    await eventually(lambda: world.pending(1)[0] == "NO_HOST_FITS")
    assert world.pending(1)[1].endswith("0 match the requirement; no host has the attribute LABEL_DISC")


async def test_a_requirement_that_cannot_be_read_is_told(world: World, scheduler: Running) -> None:
    await world.host(1)
    await world.vm(1, template(requirement="FREE_CPU >"))
    await eventually(lambda: world.pending(1)[0] == "EXPRESSION_INVALID")


async def test_a_reason_is_not_written_again_while_nothing_changes(world: World, scheduler: Running) -> None:
    await world.vm(1)
    await eventually(lambda: world.pending(1)[0] == "NO_HOSTS")
    first = world.store.cache.get("vm", 1, "placement")
    await world.vm(2)
    await eventually(lambda: world.pending(2)[0] == "NO_HOSTS")
    assert world.store.cache.get("vm", 1, "placement") is first


async def test_requirement_and_rank_choose_the_host(world: World, scheduler: Running) -> None:
    for host_id in range(1, 5):
        await world.host(host_id, labels={"rack": str(host_id)})
    await world.vms(range(1, 4), template(requirement="LABEL_RACK > 1 & LABEL_RACK < 4", rank="LABEL_RACK"))
    await eventually(lambda: world.placed() == {1: 3, 2: 3, 3: 3})


async def test_the_host_that_was_asked_for_is_the_only_one(world: World, scheduler: Running) -> None:
    await world.host(1, cpus=64)
    await world.host(2, cpus=1)
    await world.vm(1, wanted_host_id=2)
    await eventually(lambda: world.host_of(1) == 2)
    await world.vm(2, wanted_host_id=2)
    await eventually(lambda: world.pending(2)[0] == "NO_HOST_FITS")
    assert world.pending(2)[1] == ("2 hosts: 2 enabled, 1 with the id 2 that was asked for, 0 have 100 % of CPU free")


async def test_disabled_and_silent_hosts_get_nothing_until_they_are_back(world: World, scheduler: Running) -> None:
    await world.host(1)
    await world.host(2)
    await world.mode(1, host_pb2.HOST_MODE_DISABLED)
    await world.liveness(2, SILENT)
    await world.vm(1)
    await eventually(lambda: world.pending(1) == ("NO_HOSTS", "2 hosts: 1 enabled, 0 connected"))
    await world.liveness(2, CONNECTED)
    await eventually(lambda: world.host_of(1) == 2)
    await world.mode(1, host_pb2.HOST_MODE_ENABLED)
    await world.vm(2)
    await eventually(lambda: world.host_of(2) == 1)


async def test_a_host_that_falls_silent_in_a_burst_gets_nothing_after_that(world: World, scheduler: Running) -> None:
    for host_id in range(1, 5):
        await world.host(host_id, cpus=500, memory_mib=1_000_000)
    await world.vms(range(1, 401))
    await world.liveness(1, SILENT)
    await world.vms(range(401, 801))
    await eventually(lambda: len(world.placed()) == 800)
    assert not [vm_id for vm_id, host_id in world.placed().items() if host_id == 1 and vm_id > 400]


async def test_held_and_powered_off_vms_are_not_placed(world: World, scheduler: Running) -> None:
    await world.host(1)
    await world.vm(1, desired=vm_pb2.DESIRED_STATE_HELD)
    await world.vm(2, desired=vm_pb2.DESIRED_STATE_POWERED_OFF)
    await world.vm(3)
    await eventually(lambda: world.host_of(3) == 1)
    assert world.placed() == {3: 1}
    await world.desire(1, vm_pb2.DESIRED_STATE_RUNNING)
    await world.desire(2, vm_pb2.DESIRED_STATE_RUNNING)
    await eventually(lambda: world.placed() == {1: 1, 2: 1, 3: 1})


async def test_a_powered_off_vm_keeps_its_room(world: World, scheduler: Running) -> None:
    await world.host(1, cpus=1)
    await world.vm(1)
    await eventually(lambda: world.host_of(1) == 1)
    await world.status(1, 1, vm_pb2.VM_PHASE_POWERED_OFF)
    await world.desire(1, vm_pb2.DESIRED_STATE_POWERED_OFF)
    await world.vm(2)
    await eventually(lambda: world.pending(2)[0] == "NO_HOST_FITS")
    assert world.host_of(1) == 1


async def test_room_is_given_back_when_the_node_has_erased(world: World, scheduler: Running) -> None:
    await world.host(1, cpus=1)
    await world.vm(1)
    await eventually(lambda: world.host_of(1) == 1)
    await world.status(1, 1, vm_pb2.VM_PHASE_RUNNING)
    await world.vm(2)
    await world.desire(1, vm_pb2.DESIRED_STATE_TERMINATED)
    await eventually(lambda: world.pending(2)[0] == "NO_HOST_FITS")
    assert world.host_of(1) == 1, "the node has not erased yet"
    await world.gone(1, 1)
    await eventually(lambda: world.placement(1) is None)
    await eventually(lambda: world.host_of(2) == 1)


async def test_a_vm_that_no_node_has_claimed_is_released_at_once(world: World, scheduler: Running) -> None:
    await world.host(1)
    await world.vm(1)
    await eventually(lambda: world.host_of(1) == 1)
    await world.desire(1, vm_pb2.DESIRED_STATE_TERMINATED)
    await eventually(lambda: world.placement(1) is None)


async def test_a_vm_that_waited_in_vain_leaves_nothing_behind(world: World, scheduler: Running) -> None:
    await world.vm(1)
    await eventually(lambda: world.pending(1)[0] == "NO_HOSTS")
    await world.desire(1, vm_pb2.DESIRED_STATE_TERMINATED)
    await eventually(lambda: world.placement(1) is None)


async def test_vms_terminated_while_they_are_placed_leave_nothing_behind(world: World, scheduler: Running) -> None:
    await world.host(1, cpus=200, memory_mib=1_000_000)
    for first in range(1, 200, 20):
        await world.vms(range(first, first + 20))
        for vm_id in range(first, first + 20):
            await world.desire(vm_id, vm_pb2.DESIRED_STATE_TERMINATED)
    await eventually(lambda: all(world.placement(vm_id) is None for vm_id in range(1, 201)))
    await world.vm(1000, template(1_000_000, cpu_percent=20_000))
    await eventually(lambda: world.host_of(1000) == 1, what="all of the room is free again")


async def test_a_vm_restarts_elsewhere_only_when_its_host_is_fenced_and_it_wants_to(
    world: World, scheduler: Running
) -> None:
    await world.host(1)
    await world.vm(1, template(on_host_loss=template_pb2.ON_HOST_LOSS_RESTART))
    await world.vm(2)
    await eventually(lambda: len(world.placed()) == 2)
    await world.status(1, 1, vm_pb2.VM_PHASE_RUNNING)
    await world.status(2, 1, vm_pb2.VM_PHASE_RUNNING)
    await world.liveness(1, SILENT)
    await world.host(2)
    await world.vm(3)
    await eventually(lambda: world.host_of(3) == 2)
    assert world.host_of(1) == 1
    await world.liveness(1, FENCED)
    await eventually(lambda: world.host_of(1) == 2)
    placement = world.placement(1)
    assert placement is not None
    assert placement.epoch == 2
    assert placement.cause.reason == "HOST_FENCED"
    assert world.host_of(2) == 1


async def test_a_vm_that_loses_two_hosts_restarts_on_a_third_once_both_are_fenced(
    world: World, scheduler: Running
) -> None:
    await world.host(1)
    await world.vm(1, template(on_host_loss=template_pb2.ON_HOST_LOSS_RESTART_WITH_NEW_DISKS))
    await eventually(lambda: world.host_of(1) == 1)
    await world.status(1, 1, vm_pb2.VM_PHASE_RUNNING)
    await world.liveness(1, FENCED)
    await world.host(2)
    await eventually(lambda: world.host_of(1) == 2)
    await world.status(1, 2, vm_pb2.VM_PHASE_RUNNING)
    await world.liveness(1, SILENT)
    await world.liveness(2, FENCED)
    await world.host(3)
    await world.vm(2)
    await eventually(lambda: world.host_of(2) == 3)
    assert world.host_of(1) == 2, "what is left of it on the first host may run again"
    await world.liveness(1, FENCED)
    await eventually(lambda: world.host_of(1) == 3)


async def test_higher_priority_gets_what_is_left(world: World, scheduler: Running) -> None:
    await world.vm(1, template(priority=0))
    await world.vm(2, template(priority=9))
    await eventually(lambda: world.pending(2)[0] == "NO_HOSTS")
    await world.host(1, cpus=1)
    await eventually(lambda: world.placed() == {2: 1})


async def test_a_new_scheduler_knows_what_is_held(world: World, start: Start) -> None:
    await world.host(1, cpus=2)
    async with start():
        await world.vm(1)
        await eventually(lambda: world.host_of(1) == 1)
    async with start():
        await world.vms([2, 3])
        await eventually(lambda: len(world.placed()) == 2)
        await eventually(lambda: world.pending(3)[0] == "NO_HOST_FITS")


async def test_devices_and_numa_nodes_are_granted_with_the_placement_and_come_back_with_the_vm(
    world: World, scheduler: Running
) -> None:
    cards = [host_pb2.PciDevice(address=f"0000:0{number}:00.0", vendor="10de", device="1eb8") for number in (1, 2)]
    nodes = [host_pb2.NumaNode(node_id=number, memory_mib=4096) for number in (0, 1)]
    await world.host(1)
    await world.host(2, pci_devices=cards, numa_nodes=nodes)
    wanting = template(256, pci_devices=[template_pb2.PciRequest(vendor="10DE")])
    wanting.cpu.pinning = "shared"
    await world.vms(range(1, 4), wanting)
    await eventually(lambda: len(world.placed()) == 2)
    granted = [placement.granted for vm_id in (1, 2) if (placement := world.placement(vm_id))]
    assert sorted(each.pci_addresses[0] for each in granted) == ["0000:01:00.0", "0000:02:00.0"]
    assert sorted(each.numa_nodes[0] for each in granted) == [0, 1], "the node with more room each time"
    await eventually(lambda: world.pending(3)[0] == "NO_HOST_FITS")
    assert "0 have the devices and NUMA nodes free" in world.pending(3)[1]

    await world.desire(1, vm_pb2.DESIRED_STATE_TERMINATED)
    await eventually(lambda: world.host_of(3) == 2, what="the device goes to who waits")
    placement = world.placement(3)
    assert placement is not None
    assert placement.granted.pci_addresses == granted[0].pci_addresses


async def test_a_vm_that_was_imported_stays_where_it_is_and_a_move_is_refused_with_the_reason(
    world: World, scheduler: Running
) -> None:
    await world.host(1)
    await world.host(2)
    spec, intent = vm_pb2.VmSpec(uid="vm-1", name="legacy", owner_id=7, imported_as="legacy"), vm_pb2.VmIntent(
        uid="vm-1", desired=vm_pb2.DESIRED_STATE_RUNNING, generation=1, owner_id=7, wanted_host_id=1
    )  # fmt: skip
    spec.template.CopyFrom(template())
    await world.store.commit(Txn().put(key("vm", 1, "spec"), spec).put(key("vm", 1, "intent"), intent))
    await eventually(lambda: world.host_of(1) == 1)
    status = vm_pb2.VmStatus(
        uid="vm-1", host_id=1, epoch=1, phase=vm_pb2.VM_PHASE_RUNNING, observed_generation=1
    )  # fmt: skip
    intent.operation.id, intent.operation.kind, intent.operation.epoch = "op", vm_pb2.OPERATION_KIND_MIGRATE, 1
    intent.operation.parameters.move.host_id = 2
    txn = Txn().put(key("vm", 1, f"status/{1:010d}"), status).put(key("vm", 1, "intent"), intent)
    await world.store.commit(txn)
    await eventually(lambda: (found := world.placement(1)) and found.refusal.id == "op", what="the move is refused")
    placement = world.placement(1)
    assert placement is not None and not placement.HasField("move")
    assert (placement.host_id, placement.refusal.reason) == (1, "CAPABILITY")
    assert "it was imported" in placement.refusal.message
