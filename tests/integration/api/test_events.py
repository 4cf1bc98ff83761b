"""The history: every transition once and in order, whoever was stopped or killed; a gap where that cannot be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from moln.compute.v1 import cluster_service_pb2, host_pb2, template_pb2, vm_pb2, vm_service_pb2
from moln.etcd.v1 import etcd_pb2
from moln.operations.v1 import operations_service_pb2 as pb
from services.api.history import replay
from services.api.history.log import EventLog
from services.api.settings import Settings
from services.common.store import Txn, key
from tests.integration.api.conftest import Nodes, Start
from tests.integration.api.process import ApiProcess
from tests.integration.api.running import Client, Clients, Running, refused
from tests.integration.api.world import World
from tests.support.etcd import EtcdServer
from tests.support.eventually import eventually
from tests.support.processes import Processes

VM = template_pb2.VmTemplate(memory_mib=64)


async def create(client: Client, **fields: object) -> int:
    """A new VM."""
    vm = await client.vms.CreateVm(vm_service_pb2.CreateVmRequest(template=VM, **fields))  # type: ignore[arg-type]
    return int(vm.id)


async def events(client: Client, text: str = "kind=vm", **fields: object) -> list[pb.Event]:
    """Events that a filter lets through."""
    answer = await client.operations.ListEvents(pb.ListEventsRequest(filter=text, **fields))  # type: ignore[arg-type]
    return list(answer.events)


def steps(found: list[pb.Event]) -> list[tuple[int, str, str]]:
    """(id, from, to) of each."""
    return [(event.id, str(getattr(event, "from")), event.to) for event in found]


async def has(client: Client, expected: list[tuple[int, str, str]], text: str = "kind=vm") -> list[pb.Event]:
    """Waits until the history is as expected."""
    found: list[pb.Event] = []

    async def is_so() -> bool:
        found[:] = await events(client, text)
        assert steps(found)[: len(expected)] == expected[: len(found)], steps(found)
        return steps(found) == expected

    await eventually(is_so, what="events")
    assert [event.revision for event in found] == sorted(event.revision for event in found)
    return found


async def test_the_life_of_a_vm_is_told_step_by_step(admin: Client, nodes: Nodes, world: World) -> None:
    async with await nodes.agent() as agent:
        await agent.sync()
        vm_id = await create(admin, name="web")
        await world.place(vm_id, 1)
        order = await agent.order(vm_id)
        await agent.start(order)
        await admin.vms.TerminateVm(vm_service_pb2.TerminateVmRequest(id=vm_id))
        await agent.gone(await agent.order(vm_id, lambda each: each.is_erase))
        await world.release(vm_id)
        found = await has(
            admin,
            [
                (vm_id, "", "PENDING"), (vm_id, "PENDING", "STARTING"), (vm_id, "STARTING", "STARTING"),
                (vm_id, "STARTING", "RUNNING"), (vm_id, "RUNNING", "TERMINATING"),
                (vm_id, "TERMINATING", "TERMINATING"), (vm_id, "TERMINATING", ""),
            ],
        )  # fmt: skip
    assert [event.name for event in found] == ["web"] * 7
    assert [event.cause.actor for event in found[:5]] == [
        "admin",
        "<scheduler>",
        "<node node-1>",
        "<node node-1>",
        "admin",
    ]
    assert [event.host_id for event in found] == [0, 1, 1, 1, 1, 0, 0]
    assert found[0].cause.request_id and found[0].cause.reason == "CREATE"
    assert {event.owner_id for event in found} == {1}


async def test_a_vm_with_secrets_is_created_by_somebody_too(admin: Client) -> None:
    shape = template_pb2.VmTemplate(memory_mib=64)
    shape.context.secret_variables["A"] = "1"
    vm = await admin.vms.CreateVm(vm_service_pb2.CreateVmRequest(template=shape))
    assert (await has(admin, [(vm.id, "", "PENDING")]))[0].cause.actor == "admin"


async def test_other_objects_have_a_history_too(admin: Client, clients: Clients, nodes: Nodes, world: World) -> None:
    await clients.user("anna")
    await admin.clusters.CreateCluster(cluster_service_pb2.CreateClusterRequest(name="east"))
    await world.image(1, "debian")
    await world.network(1, "net")
    async with await nodes.agent() as agent:
        await agent.sync()
        await has(admin, [(1, "", "NEW"), (1, "NEW", "UP")], "kind=host")
    await has(admin, [(1, "", "CREATED"), (2, "", "CREATED")], "kind=user")
    await has(admin, [(1, "", "CREATED")], "kind=cluster")
    await has(admin, [(1, "", "CREATED")], "kind=network")
    await has(admin, [(1, "", "READY")], "kind=image")


async def test_everyone_reads_of_his_own(clients: Clients, admin: Client) -> None:
    anna = await clients.user("anna")
    mine, theirs = await create(anna), await create(admin)
    await has(admin, [(mine, "", "PENDING"), (theirs, "", "PENDING")])
    assert steps(await events(anna)) == [(mine, "", "PENDING")]
    assert await events(anna, "kind=host") == []


async def test_events_come_in_pages_of_whole_revisions(admin: Client) -> None:
    requests = [vm_service_pb2.CreateVmRequest(template=VM) for _ in range(25)]
    await admin.vms.BatchCreateVms(vm_service_pb2.BatchCreateVmsRequest(requests=requests))
    made = [await create(admin) for _ in range(5)]
    everything = await has(admin, [(vm_id, "", "PENDING") for vm_id in range(made[0] - 25, made[-1] + 1)])
    found: list[pb.Event] = []
    at = everything[0].revision - 1
    while len(found) < 30:
        page = await admin.operations.ListEvents(pb.ListEventsRequest(from_revision=at, page_size=3, filter="kind=vm"))
        assert page.events
        found += page.events
        at = page.next_revision
    assert steps(found) == steps(everything)
    assert steps(await events(admin, is_newest=True, page_size=2)) == steps(everything)[-2:]


async def test_the_newest_events_are_those_that_match(admin: Client) -> None:
    held = [await create(admin, is_held=True) for _ in range(3)]
    others = [await create(admin) for _ in range(10)]
    await has(admin, [(vm_id, "", "HELD") for vm_id in held] + [(vm_id, "", "PENDING") for vm_id in others])
    assert steps(await events(admin, "to=HELD", is_newest=True, page_size=2)) == [
        (held[1], "", "HELD"), (held[2], "", "HELD"),
    ]  # fmt: skip


async def test_filters_find_what_they_say(admin: Client) -> None:
    first, second = await create(admin, name="web"), await create(admin, name="db", is_held=True)
    await has(admin, [(first, "", "PENDING"), (second, "", "HELD")])
    assert steps(await events(admin, f"kind=vm id={second}")) == [(second, "", "HELD")]
    assert steps(await events(admin, "name=w* actor=admin")) == [(first, "", "PENDING")]
    with refused("FILTER_INVALID", "filter"):
        await events(admin, "colour=red")


@asynccontextmanager
async def watching(client: Client, **fields: object) -> AsyncIterator[list[pb.Event]]:
    """The events that a watch has told."""
    found: list[pb.Event] = []
    stream = client.operations.WatchEvents(pb.WatchEventsRequest(**fields))  # type: ignore[arg-type]

    async def read() -> None:
        async for answer in stream:
            found.extend(answer.events)
            assert answer.next_revision >= answer.events[-1].revision

    task = asyncio.create_task(read())
    try:
        yield found
    finally:
        stream.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_watch_tells_what_happens_and_goes_on_from_any_revision(admin: Client, clients: Clients) -> None:
    anna = await clients.user("anna")
    first = await create(admin)
    at = (await has(admin, [(first, "", "PENDING")]))[0].revision
    async with (
        watching(admin, from_revision=at, filter="kind=vm") as resumed,
        watching(admin, from_revision=at - 1, filter="kind=vm") as earlier,
        watching(anna, from_revision=at) as hers,
    ):
        second = await create(anna)
        await eventually(lambda: steps(resumed) == [(second, "", "PENDING")])
        await eventually(lambda: steps(earlier) == [(first, "", "PENDING"), (second, "", "PENDING")])
        await eventually(lambda: steps(hers) == [(second, "", "PENDING")])


async def test_an_empty_history_can_be_followed_from_its_first_answer(admin: Client) -> None:
    before = await admin.operations.ListEvents(pb.ListEventsRequest(filter="kind=vm"))
    vm_id = await create(admin)
    await has(admin, [(vm_id, "", "PENDING")])
    after = await admin.operations.ListEvents(
        pb.ListEventsRequest(from_revision=before.next_revision, filter="kind=vm")
    )
    assert steps(list(after.events)) == [(vm_id, "", "PENDING")]


async def test_what_happened_while_the_api_was_stopped_is_told_when_it_is_back(start: Start, etcd: EtcdServer) -> None:
    async with start() as api:
        admin = Client(api.address, f"Bearer {api.admin_token}")
        vm_id = await create(admin)
        await has(admin, [(vm_id, "", "PENDING")])
        await admin.channel.close()
    world = await World.open(etcd.settings)
    await world.place(vm_id, 1)
    await world.pend(vm_id, "NO_HOST_FITS", "0 of 1")
    await world.store.close()
    async with start() as api:
        admin = Client(api.address, f"Bearer {api.admin_token}")
        found = await has(
            admin, [(vm_id, "", "PENDING"), (vm_id, "PENDING", "STARTING"), (vm_id, "STARTING", "PENDING")]
        )
        assert found[-1].reason == "NO_HOST_FITS"
        await create(admin)
        await admin.channel.close()


@pytest.mark.timeout(120)
async def test_kill_9_between_events_loses_and_doubles_none(
    settings_of: Callable[[str], Settings], running: Processes
) -> None:
    killed, witness = ApiProcess(running, settings_of("killed")), ApiProcess(running, settings_of("witness"))
    await killed.start()
    await witness.start()
    admin = killed.admin()  # the first to start has founded the cloud
    other = Client(witness.addresses["grpc"], f"Bearer {admin_token(killed)}")
    expected: list[tuple[int, str, str]] = []
    for number in range(3):
        requests = [vm_service_pb2.CreateVmRequest(template=VM, is_held=bool(number)) for _ in range(40)]
        batch = vm_service_pb2.BatchCreateVmsRequest(requests=requests)
        answer = await (other if number == 1 else admin).vms.BatchCreateVms(batch)
        if number == 0:
            killed.kill()
        elif number == 1:
            await killed.start()
            await admin.channel.close()
            admin = killed.admin()
        expected += [(result.vm.id, "", "HELD" if number else "PENDING") for result in answer.results]
    for client in (admin, other):
        found: list[pb.Event] = []

        async def is_whole(client: Client = client, found: list[pb.Event] = found) -> bool:
            found[:] = await events(client, page_size=10_000)
            return len(found) >= len(expected)

        await eventually(is_whole)
        assert sorted(steps(found)) == sorted(expected)
        await client.channel.close()
    assert killed.stop() == witness.stop() == 0


def admin_token(api: ApiProcess) -> str:
    """The founder's token."""
    return (api._settings.state_dir / "admin.token").read_text().strip()


async def test_where_revisions_are_forgotten_there_is_a_gap_and_all_are_told(start: Start, etcd: EtcdServer) -> None:
    async with start() as api:
        admin = Client(api.address, f"Bearer {api.admin_token}")
        vm_id = await create(admin)
        await has(admin, [(vm_id, "", "PENDING")])
        await admin.channel.close()
    world = await World.open(etcd.settings)
    await world.place(vm_id, 1)
    revision = await world.store.commit(Txn().put(key("cluster", 9, "spec"), host_pb2.HostSpec()))
    await world.store.client.compact(etcd_pb2.CompactionRequest(revision=revision).SerializeToString())
    await world.store.close()
    async with start() as api:
        admin = Client(api.address, f"Bearer {api.admin_token}")
        found = await events(admin, "")
        assert [event.kind for event in found if event.kind in ("vm", "gap")] == ["vm", "gap"]
        assert found[-1].reason == "HISTORY_GAP"
        assert "missing" in found[-1].message
        await admin.channel.close()


async def test_a_value_that_does_not_parse_stops_no_history(start: Start, etcd: EtcdServer) -> None:
    async with start() as api:
        admin = Client(api.address, f"Bearer {api.admin_token}")
        vm_id = await create(admin)
        await has(admin, [(vm_id, "", "PENDING")])
        await admin.channel.close()
    world = await World.open(etcd.settings)
    await world.store.commit(Txn().put(key("vm", vm_id, "placement"), b"\xff\xff"))
    await world.store.commit(Txn().delete(key("vm", vm_id, "placement")))
    await world.place(vm_id, 1)
    await world.store.close()
    async with start() as api:
        admin = Client(api.address, f"Bearer {api.admin_token}")
        await has(admin, [(vm_id, "", "PENDING"), (vm_id, "PENDING", "STARTING")])
        await admin.channel.close()


async def test_a_revision_that_is_no_longer_kept_is_refused(world: World, start: Start, api: Running) -> None:
    await world.image(1, "debian")
    async with start("later") as later:
        admin = Client(later.address, f"Bearer {api.admin_token}")
        await _refused_revision(admin)
        await admin.channel.close()


async def _refused_revision(admin: Client) -> None:
    with refused("REVISION_GONE", words="from_revision"):
        await events(admin, "", from_revision=1)
    with refused("REVISION_GONE"):
        await anext(aiter(admin.operations.WatchEvents(pb.WatchEventsRequest(from_revision=1))))


async def test_a_history_of_a_lost_store_is_set_aside(start: Start, etcd: EtcdServer, folder: object) -> None:
    async with start() as api:
        admin = Client(api.address, f"Bearer {api.admin_token}")
        for _ in range(5):
            await create(admin)
        await has(admin, [(number, "", "PENDING") for number in range(1, 6)])
        state = api.settings.state_dir
        await admin.channel.close()
    etcd.close()
    etcd.folder.mkdir()
    etcd.start()
    async with start() as api:
        admin = Client(api.address, f"Bearer {api.admin_token}")
        assert await events(admin) == []
        await admin.channel.close()
    assert len(list(state.glob("history-before-*"))) == 1


async def test_vm_states_of_the_history_are_those_of_the_contract(admin: Client) -> None:
    vm_id = await create(admin)
    found = await has(admin, [(vm_id, "", "PENDING")])
    assert f"VM_STATE_{found[0].to}" in vm_pb2.VmState.keys()  # noqa: SIM118  no dictionary


class Refusing(EventLog):
    """A history whose disk is full while `is_full`."""

    is_full = False

    def append(self, events: Sequence[pb.Event], revision: int) -> None:
        if Refusing.is_full:
            raise OSError(28, "No space left on device")
        super().append(events, revision)


async def test_a_full_disk_is_told_and_nothing_is_lost_by_it(
    start: Start, impatient_ticks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "EventLog", Refusing)
    monkeypatch.setattr(Refusing, "is_full", False)
    async with start() as api:
        admin = Client(api.address, f"Bearer {api.admin_token}")
        monkeypatch.setattr(Refusing, "is_full", True)
        vm_id = await create(admin)
        await eventually(lambda: _problem(admin), what="the process says what is wrong")
        assert await events(admin) == []
        monkeypatch.setattr(Refusing, "is_full", False)
        await has(admin, [(vm_id, "", "PENDING")])

        async def is_well() -> bool:
            return not await _problem(admin)

        await eventually(is_well)
        await admin.channel.close()


async def _problem(admin: Client) -> bool:
    status = await admin.operations.GetStatus(pb.GetStatusRequest())
    return any("history cannot be written" in problem.message for problem in status.problems)
