"""Live migration between two libvirtds in network namespaces of their own: nothing is lost, and it never runs twice."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from moln.compute.v1 import vm_pb2
from moln.node.v1.node_service_pb2 import VmOrder
from services.common.domain.reasons import Reason
from services.hostagent.drivers.libvirt.driver import DriverOptions, LibvirtDriver
from services.hostagent.drivers.ports import Deed, Outcome, Power, Seen
from tests.integration.hostagent.libvirt.conftest import pieces_of
from tests.integration.hostagent.libvirt.guests_at_work import (
    answer,
    count_reaches,
    counting,
    last_count,
    says,
    text_of,
)
from tests.support import hypervisor
from tests.support.deeds import Doer, operation
from tests.support.eventually import eventually
from tests.support.processes import Processes
from tests.support.two_hosts import Host, two_hosts

pytestmark = pytest.mark.timeout(400)
ROOT = Path(__file__).parents[4]
PATIENCE_S = 1.0
DIRTY = (
    "mkdir /churn; mount -t tmpfs none /churn; dd if=/dev/urandom of=/churn/a bs=1M count=8 2>/dev/null; "
    "(while :; do cat /churn/a > /churn/b; done) & echo dirty-$((1+1)) > /dev/console"
)


@dataclass
class Node:
    """An agent's driver on one host."""

    driver: LibvirtDriver
    doer: Doer
    host: Host
    host_id: int
    state: Path


@pytest.fixture
def hosts(running: Processes, folder: Path) -> Iterator[tuple[Host, Host]]:
    with two_hosts(running, folder) as both:
        yield both


@pytest.fixture(params=["copied", "shared"])
def is_shared(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "shared")


@pytest.fixture
async def nodes(hosts: tuple[Host, Host], folder: Path, datastore: Path) -> AsyncIterator[tuple[Node, Node]]:
    async with both_nodes(hosts, folder, datastore, is_shared=False) as found:
        yield found


@asynccontextmanager
async def both_nodes(
    hosts: tuple[Host, Host], folder: Path, datastore: Path, *, is_shared: bool
) -> AsyncIterator[tuple[Node, Node]]:
    async with AsyncExitStack() as stack:
        made = [await stack.enter_async_context(node(i + 1, hosts[i], folder, datastore, is_shared)) for i in range(2)]
        yield made[0], made[1]


@asynccontextmanager
async def node(host_id: int, host: Host, folder: Path, datastore: Path, is_shared: bool) -> AsyncIterator[Node]:
    state = folder / f"node-{host_id}"
    state.mkdir(exist_ok=True)
    if is_shared and not (state / "vms").exists():
        (folder / "vms").mkdir(exist_ok=True)
        (state / "vms").symlink_to(folder / "vms")
    options = DriverOptions(
        host_id, hypervisor.CLOUD, state, host.uri, domain_type="qemu", has_bridges=False,
        migration_uri=host.migration_uri, patience_s=PATIENCE_S,
    )  # fmt: skip
    async with LibvirtDriver(options, pieces_of(datastore)) as driver:
        await driver.inventory(host_id, [hypervisor.datastore(datastore)])
        try:
            yield Node(driver, Doer(driver), host, host_id, state)
        finally:
            for seen in await driver.look(host_id):
                left = hypervisor.order(None, vm_id=seen.vm_id)
                left.uid, left.host_id = seen.uid, host_id
                await Doer(driver).do(Deed.ERASE, left)


def live(vm: VmOrder, *, on_stall: int = 0, bandwidth: int = 0) -> None:
    """The order's VM is to move from host 1 to host 2."""
    move = vm.move.move
    move.move_id, move.target_host_id, move.epoch, move.how = "m-1", 2, 2, vm_pb2.MOVE_MODE_LIVE
    move.on_stall, move.bandwidth_mib_per_s = on_stall, bandwidth  # type: ignore[assignment]


def of_target(vm: VmOrder) -> VmOrder:
    there = VmOrder.FromString(vm.SerializeToString())
    there.host_id, there.epoch = 2, 2
    there.move.is_target, there.move.peer_host_id = True, 1
    return there


async def prepare(vm: VmOrder, target: Node) -> VmOrder:
    """The target gets ready; its order. What it says is in the source's order afterwards."""
    there = of_target(vm)
    ready = await target.doer.do(Deed.RECEIVE, there)
    assert ready.is_done, ready
    vm.move.peer_host_id, vm.move.peer_name, vm.move.peer_migration_uri = 2, "host-2", target.host.migration_uri
    vm.move.peer_status.move.results.update(ready.results)
    return there


async def test_a_guest_counts_on_over_there_without_a_gap(
    hosts: tuple[Host, Host],
    folder: Path,
    datastore: Path,
    image: Path,
    is_shared: bool,
    record_property: Callable[[str, object], None],
) -> None:
    async with both_nodes(hosts, folder, datastore, is_shared=is_shared) as (source, target):
        vm, heard = counting(image), list[Seen]()
        live(vm)
        assert (await source.doer.do(Deed.START, vm)).is_done
        await says(source.driver, vm, " ready")
        await answer(source.driver, vm, "echo mine > /data/kept; sync; echo written-$((1+1))", "written-2")
        there = await prepare(vm, target)
        assert vm.move.peer_status.move.results["shared_storage"] == ("yes" if is_shared else "no")
        assert (await target.doer.do(Deed.RECEIVE, there)).is_done, "repeated it is ready already"
        assert await target.doer.power(there) is Power.OFF
        target.driver.listen(heard.append)

        moved = await source.doer.do(Deed.MIGRATE, vm)
        assert moved.is_done, moved
        assert await source.doer.power(vm) is not Power.RUNNING
        await eventually(lambda: heard and heard[-1].power is Power.RUNNING, what="its arrival is heard")
        assert (heard[-1].epoch, heard[-1].host_id) == (2, 2)
        assert (await source.doer.do(Deed.MIGRATE, vm)).is_done, "begun again it finds that it has left"

        there.move.Clear()
        at = await last_count(source.driver, vm)
        await count_reaches(target.driver, there, at + 10)
        numbers = await counted(source, target, vm, there, is_shared=is_shared)
        assert numbers == list(range(numbers[0], numbers[-1] + 1)), "no number is missing, none is there twice"

        assert (await source.doer.do(Deed.ERASE, vm)).is_done
        assert await source.doer.power(vm) is Power.ABSENT
        await answer(target.driver, there, "cat /data/kept", "mine")
        seen = await target.doer.seen(there)
        assert seen is not None
        assert (seen.epoch, seen.power) == (2, Power.RUNNING)
        kind = "shared" if is_shared else "copied"
        record_property("measured", f"live migration ({kind} disks): {len(numbers)} numbers, no gap")
        assert (await target.doer.do(Deed.PLUG, there)).is_done
        assert (await target.doer.do(Deed.START, there)).is_done, "it starts there again from the disk that came along"
        await says(target.driver, there, " ready")
        await answer(target.driver, there, "cat /data/kept", "mine")


async def counted(source: Node, target: Node, vm: VmOrder, there: VmOrder, *, is_shared: bool) -> list[int]:
    """The numbers in the logs of both sides, one after the other."""
    log = "" if is_shared else await text_of(source.driver, vm)
    log += await text_of(target.driver, there)
    return [int(number) for number in re.findall(r"count-(\d+)\r", log)]


async def test_the_pause_of_a_migration_is_measured(
    nodes: tuple[Node, Node], image: Path, record_property: Callable[[str, object], None]
) -> None:
    source, target = nodes
    vm = counting(image)
    live(vm)
    await source.doer.do(Deed.START, vm)
    await count_reaches(source.driver, vm, 3)
    there = await prepare(vm, target)
    moving = source.doer.begin(Deed.MIGRATE, vm)
    last, longest, number = time.monotonic(), 0.0, await last_count(source.driver, vm)

    async def counts_on() -> bool:
        nonlocal last, longest, number
        now = max(await last_count(source.driver, vm), await last_count(target.driver, there))
        if now != number:
            longest, last, number = max(longest, time.monotonic() - last), time.monotonic(), now
        return moving.done() and number >= 20

    await eventually(counts_on, what="it has moved and counts on", within=120)
    assert (await moving).is_done
    record_property("measured", f"live migration: a guest that counts every 0.2 s is silent for {longest:.2f} s")
    assert longest < 60


async def test_a_move_that_is_cancelled_leaves_the_guest_where_it_runs(nodes: tuple[Node, Node], image: Path) -> None:
    source, target = nodes
    vm = counting(image)
    live(vm, bandwidth=1)
    await source.doer.do(Deed.START, vm)
    await count_reaches(source.driver, vm, 3)
    there = await prepare(vm, target)
    moving = source.doer.begin(Deed.MIGRATE, vm)
    await eventually(lambda: source.doer.steps == ["migrate"], what="it is under way")
    assert await target.doer.power(there) is Power.OFF, "what is arriving does not run"
    source.driver.interrupt(1, vm.vm_id)
    assert (await moving).was_interrupted
    await still_counts(source, vm)
    assert (await target.doer.do(Deed.ERASE, there)).is_done
    assert await target.doer.power(there) is Power.ABSENT
    there = await prepare(vm, target)
    vm.move.move.bandwidth_mib_per_s = 0
    assert (await source.doer.do(Deed.MIGRATE, vm)).is_done, "the next try succeeds"


async def test_a_move_that_fails_leaves_the_guest_where_it_runs_and_says_why(
    nodes: tuple[Node, Node], image: Path
) -> None:
    source, target = nodes
    vm = counting(image)
    live(vm)
    await source.doer.do(Deed.START, vm)
    await count_reaches(source.driver, vm, 3)
    unready = await source.doer.do(Deed.MIGRATE, vm)
    assert (unready.reason, "migration_uri" in unready.message) == (Reason.MIGRATION_FAILED, True)
    there = await prepare(vm, target)
    disk = target.state / "vms" / vm.uid / "disk-0.qcow2"
    disk.unlink()
    failed = await source.doer.do(Deed.MIGRATE, vm)
    assert (failed.is_done, failed.reason) == (False, Reason.MIGRATION_FAILED)
    assert failed.message
    await still_counts(source, vm)
    assert (await target.doer.do(Deed.ERASE, there)).is_done
    create = operation(vm_pb2.OPERATION_KIND_CREATE_DISK_SNAPSHOT, disk_id=0, snapshot="one")
    assert (await source.doer.operate(vm, create)).is_done
    await prepare(vm, target)
    with_snapshots = await source.doer.do(Deed.MIGRATE, vm)
    assert "snapshots" in with_snapshots.message
    await still_counts(source, vm)


@pytest.mark.parametrize(
    "on_stall",
    [
        pytest.param(vm_pb2.MOVE_STALL_ABORT, id="abort"),
        pytest.param(vm_pb2.MOVE_STALL_PAUSE, id="pause", marks=pytest.mark.long),
        pytest.param(vm_pb2.MOVE_STALL_POSTCOPY, id="postcopy", marks=pytest.mark.long),
    ],
)
async def test_a_move_that_does_not_converge_is_dealt_with_as_was_asked(
    nodes: tuple[Node, Node], image: Path, on_stall: int
) -> None:
    source, target = nodes
    vm = counting(image)
    vm.spec.template.context.start_script += f"\n{DIRTY}"
    live(vm, on_stall=on_stall, bandwidth=8)
    await source.doer.do(Deed.START, vm)
    await says(source.driver, vm, "dirty-2")
    there = await prepare(vm, target)
    outcome: Outcome = await source.doer.do(Deed.MIGRATE, vm)
    if on_stall == vm_pb2.MOVE_STALL_ABORT:
        assert (outcome.is_done, outcome.reason) == (False, Reason.MIGRATION_STALLED), outcome
        await still_counts(source, vm)
        return
    assert outcome.is_done, outcome
    at = await last_count(source.driver, vm)
    await count_reaches(target.driver, there, at + 5)
    assert await target.doer.power(there) is Power.RUNNING


async def still_counts(source: Node, vm: VmOrder) -> None:
    assert await source.doer.power(vm) is Power.RUNNING
    await count_reaches(source.driver, vm, await last_count(source.driver, vm) + 3)


@pytest.mark.parametrize(
    "bandwidth", [pytest.param(8, id="in the middle", marks=pytest.mark.long), pytest.param(0, id="near its end")]
)
async def test_an_agent_that_is_killed_meanwhile_leaves_one_guest_and_the_next_agent_says_where(
    hosts: tuple[Host, Host], folder: Path, datastore: Path, image: Path, running: Processes, bandwidth: int
) -> None:
    vm = counting(image)
    live(vm, bandwidth=bandwidth)
    async with both_nodes(hosts, folder, datastore, is_shared=False) as (source, target):
        await source.doer.do(Deed.START, vm)
        await count_reaches(source.driver, vm, 3)
        there = await prepare(vm, target)
        (folder / "order").write_bytes(vm.SerializeToString())
        words: list[str | Path] = [
            sys.executable,
            "-m",
            "tests.support.migrating_agent",
            source.state,
            hosts[0].uri,
            folder / "order",
        ]
        agent = running.start(words, cwd=ROOT, name="agent")
        marker = source.state / "vms" / vm.uid / "migrating-1"
        await eventually(marker.exists, what="it migrates", within=60)
        await eventually(lambda: source.driver._guests.live.job(vm.uid), what="memory is sent", within=60)
        agent.kill()
        agent.wait()
        outcome = await source.doer.do(Deed.MIGRATE, vm)
        runs = [await source.doer.power(vm) is Power.RUNNING, await target.doer.power(there) is Power.RUNNING]
        assert sorted(runs) == [False, True], (runs, outcome)
        assert outcome.is_done is runs[1], outcome
        if outcome.is_done:
            await count_reaches(target.driver, there, await last_count(source.driver, vm) + 3)
        else:
            assert outcome.reason is Reason.MIGRATION_FAILED
            await still_counts(source, vm)
