"""Lists, watches and waiting: pages that hold still, what each may see, tombstones, revisions that are gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from moln.compute.v1 import host_service_pb2, template_pb2, template_service_pb2, vm_pb2, vm_service_pb2
from services.api.usecases import vm_watches
from tests.integration.api.conftest import Nodes, Start
from tests.integration.api.running import Client, Clients, Running, refused
from tests.integration.api.world import World
from tests.support.eventually import eventually

List, Watch = vm_service_pb2.ListVmsRequest, vm_service_pb2.WatchVmsRequest


async def create(client: Client, count: int = 1, **fields: Any) -> list[int]:
    """Ids of new VMs."""
    shape = template_pb2.VmTemplate(memory_mib=64, labels=fields.pop("labels", {}))
    requests = [vm_service_pb2.CreateVmRequest(template=shape, **fields) for _ in range(count)]
    answer = await client.vms.BatchCreateVms(vm_service_pb2.BatchCreateVmsRequest(requests=requests))
    return [result.vm.id for result in answer.results]


async def pages(client: Client, size: int, text: str = "", between: Callable[[], Any] | None = None) -> list[int]:
    """Ids of all pages; `between` is done after each."""
    found: list[int] = []
    token = ""
    while True:
        page = await client.vms.ListVms(List(page_size=size, page_token=token, filter=text))
        assert len(page.vms) <= size
        found += [vm.id for vm in page.vms]
        token = page.next_page_token
        if not token:
            return found
        if between is not None:
            await between()


async def ids(client: Client, text: str) -> list[int]:
    """Ids that a filter lets through."""
    return [vm.id for vm in (await client.vms.ListVms(List(filter=text))).vms]


# Lists


async def test_pages_hold_every_vm_once_and_in_order(admin: Client) -> None:
    made = await create(admin, 10)
    assert await pages(admin, 3) == made
    assert await pages(admin, 10) == made
    assert await pages(admin, 100) == made


async def test_a_vm_that_lives_throughout_is_listed_once_while_others_come_and_go(admin: Client, world: World) -> None:
    made = await create(admin, 12)
    doomed = iter(made[::2])

    async def between() -> None:
        await create(admin)
        vm_id = next(doomed)
        await admin.vms.TerminateVm(vm_service_pb2.TerminateVmRequest(id=vm_id))
        await eventually(lambda: not world.store.cache.object("vm", vm_id))

    found = await pages(admin, 3, between=between)
    assert len(found) == len(set(found))
    assert set(made[1::2]) <= set(found)
    assert found == sorted(found)


async def test_a_page_token_belongs_to_its_filter(admin: Client) -> None:
    await create(admin, 3)
    page = await admin.vms.ListVms(List(page_size=1, filter="state=PENDING"))
    with refused("PAGE_TOKEN_INVALID", "page_token", "another filter"):
        await admin.vms.ListVms(List(page_size=1, page_token=page.next_page_token, filter="state=HELD"))
    with refused("PAGE_TOKEN_INVALID", "page_token"):
        await admin.vms.ListVms(List(page_token="nonsense"))


async def test_filters_find_what_they_say(admin: Client, nodes: Nodes, world: World) -> None:
    web, db = await create(admin, name="web-1", labels={"tier": "front"}), await create(admin, name="db")
    held = await create(admin, name="later", is_held=True)
    await nodes.hello("node-1")
    await world.place(db[0], 1)
    await eventually_ids(admin, "state=STARTING", db)
    assert await ids(admin, "name=web*") == web
    assert await ids(admin, "label.tier=front") == web
    assert await ids(admin, "label.tier!=front") == db + held
    assert await ids(admin, "state=pending,held") == web + held
    assert await ids(admin, "host=node-1") == await ids(admin, "host=1") == db
    assert await ids(admin, f"id={web[0]} owner=admin") == web
    assert await ids(admin, "reason=WAITING_FOR_NODE") == db
    with refused("FILTER_INVALID", "filter", "known keys"):
        await ids(admin, "colour=red")
    with refused("FILTER_INVALID", "filter", "one of"):
        await ids(admin, "state=SLEEPING")


async def eventually_ids(client: Client, text: str, expected: list[int]) -> None:
    """Waits until a filter lets through what it should."""

    async def is_so() -> bool:
        return await ids(client, text) == expected

    await eventually(is_so, what=f"{text} → {expected}")


async def test_everyone_lists_his_own_and_administrators_all(clients: Clients, admin: Client) -> None:
    anna, ben = await clients.user("anna"), await clients.user("ben")
    of_anna, of_ben = await create(anna, 3), await create(ben, 2)
    assert await pages(anna, 2) == of_anna
    assert await pages(ben, 2) == of_ben
    assert await pages(admin, 2) == of_anna + of_ben
    assert await ids(ben, "owner=anna") == []


async def test_other_lists_have_pages_too(admin: Client, clients: Clients) -> None:
    anna = await clients.user("anna")
    for number in range(5):
        spec = template_service_pb2.CreateTemplateRequest(name=f"t{number}", is_public=number == 4)
        await admin.templates.CreateTemplate(spec)
        await admin.hosts.CreateHost(host_service_pb2.CreateHostRequest(name=f"h{number}"))
    first = await admin.templates.ListTemplates(template_service_pb2.ListTemplatesRequest(page_size=3))
    rest = await admin.templates.ListTemplates(
        template_service_pb2.ListTemplatesRequest(page_size=3, page_token=first.next_page_token)
    )
    assert [each.spec.name for each in (*first.templates, *rest.templates)] == ["t0", "t1", "t2", "t3", "t4"]
    assert not rest.next_page_token
    seen = await anna.templates.ListTemplates(template_service_pb2.ListTemplatesRequest(filter="name=t*"))
    assert [each.spec.name for each in seen.templates] == ["t4"]
    hosts = await admin.hosts.ListHosts(host_service_pb2.ListHostsRequest(page_size=2, filter="name=h[1-4]"))
    more = await admin.hosts.ListHosts(
        host_service_pb2.ListHostsRequest(page_size=2, filter="name=h[1-4]", page_token=hosts.next_page_token)
    )
    assert [each.spec.name for each in (*hosts.hosts, *more.hosts)] == ["h1", "h2", "h3", "h4"]


# Etags


async def test_an_etag_guards_against_the_change_of_another(admin: Client) -> None:
    vm_id = (await create(admin))[0]
    vm = await admin.vms.GetVm(vm_service_pb2.GetVmRequest(id=vm_id))

    def update(name: str, etag: str) -> vm_service_pb2.UpdateVmRequest:
        request = vm_service_pb2.UpdateVmRequest(id=vm_id, spec=vm_pb2.VmSpec(name=name), etag=etag)
        request.update_mask.paths.append("name")
        return request

    await admin.vms.HoldVm(vm_service_pb2.HoldVmRequest(id=vm_id))
    changed = await admin.vms.UpdateVm(update("first", vm.view.etag))
    assert changed.spec.name == "first", "the change of another part does not count"
    with refused("ETAG_MISMATCH", words="read it again"):
        await admin.vms.UpdateVm(update("second", vm.view.etag))
    assert (await admin.vms.UpdateVm(update("second", changed.view.etag))).spec.name == "second"
    with refused("FIELD_INVALID", "spec.name"):
        await admin.vms.UpdateVm(update("12", ""))
    frozen = vm_service_pb2.UpdateVmRequest(id=vm_id)
    frozen.update_mask.paths.append("template.memory_mib")
    with refused("FIELD_IMMUTABLE"):
        await admin.vms.UpdateVm(frozen)


# Watches


class Watched:
    """What a watch has told so far."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.vms: dict[int, vm_pb2.Vm] = {}
        self.gone: list[int] = []
        self.revision = 0
        self.is_synced = False

    async def read(self) -> None:
        async for answer in self._stream:
            for vm in answer.vms:
                if vm.view.state == vm_pb2.VM_STATE_DONE:
                    assert not vm.HasField("spec")
                    self.vms.pop(vm.id, None)
                    self.gone.append(vm.id)
                else:
                    self.vms[vm.id] = vm
            assert answer.revision >= self.revision
            self.revision = answer.revision or self.revision
            self.is_synced = self.is_synced or answer.is_synced


@asynccontextmanager
async def watching(client: Client, **fields: Any) -> AsyncIterator[Watched]:
    """A watch that has sent what there is."""
    stream = client.vms.WatchVms(Watch(**fields))
    watched = Watched(stream)
    task = asyncio.create_task(watched.read())
    try:
        await eventually(lambda: watched.is_synced or task.done(), what="synced")
        yield watched
    finally:
        stream.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_watch_tells_what_there_is_then_what_changes_then_what_is_gone(admin: Client) -> None:
    first = (await create(admin))[0]
    async with watching(admin) as watched:
        assert set(watched.vms) == {first}
        second = (await create(admin, is_held=True))[0]
        await eventually(lambda: set(watched.vms) == {first, second})
        await admin.vms.ReleaseVm(vm_service_pb2.ReleaseVmRequest(id=second))
        await eventually(lambda: watched.vms[second].view.state == vm_pb2.VM_STATE_PENDING)
        await admin.vms.TerminateVm(vm_service_pb2.TerminateVmRequest(id=first))
        await eventually(lambda: watched.gone == [first])


async def test_a_watch_with_a_filter_tells_what_no_longer_matches(admin: Client) -> None:
    made = await create(admin, 2, is_held=True)
    async with watching(admin, filter="state=HELD") as watched:
        await admin.vms.ReleaseVm(vm_service_pb2.ReleaseVmRequest(id=made[0]))
        await eventually(lambda: watched.gone == made[:1])
        assert set(watched.vms) == {made[1]}


async def test_a_watch_shows_nobody_elses_vms(clients: Clients, admin: Client) -> None:
    anna = await clients.user("anna")
    theirs = await create(admin)
    async with watching(anna) as watched:
        mine = await create(anna)
        await create(admin)
        await eventually(lambda: set(watched.vms) == set(mine))
        await admin.vms.TerminateVm(vm_service_pb2.TerminateVmRequest(id=theirs[0]))
        await anna.vms.TerminateVm(vm_service_pb2.TerminateVmRequest(id=mine[0]))
        await eventually(lambda: watched.gone == mine)


async def test_a_watch_goes_on_where_it_broke_off_with_what_went_meanwhile(admin: Client, world: World) -> None:
    made = await create(admin, 4, is_held=True)
    async with watching(admin, filter="state=HELD") as watched:
        at = watched.revision
    await admin.vms.TerminateVm(vm_service_pb2.TerminateVmRequest(id=made[0]))
    await eventually(lambda: not world.store.cache.object("vm", made[0]))
    await admin.vms.ReleaseVm(vm_service_pb2.ReleaseVmRequest(id=made[1]))
    await admin.vms.UpdateVm(_renamed(made[2]))
    async with watching(admin, filter="state=HELD", from_revision=at) as watched:
        assert sorted(watched.gone) == made[:2]
        assert set(watched.vms) == {made[2]}, "what has not changed is not told again"
        await admin.vms.ReleaseVm(vm_service_pb2.ReleaseVmRequest(id=made[3]))
        await eventually(lambda: made[3] in watched.gone)


def _renamed(vm_id: int) -> vm_service_pb2.UpdateVmRequest:
    request = vm_service_pb2.UpdateVmRequest(id=vm_id, spec=vm_pb2.VmSpec(name="renamed"))
    request.update_mask.paths.append("name")
    return request


async def test_a_watch_from_before_what_is_known_is_told_to_list_anew(
    admin: Client, start: Start, api: Running
) -> None:
    await create(admin, 3)
    async with start("late") as late:
        client = Client(late.address, f"Bearer {api.admin_token}")
        with refused("REVISION_GONE", words="list anew"):
            await anext(aiter(client.vms.WatchVms(Watch(from_revision=2))))
        with refused("REVISION_GONE"):
            await anext(aiter(client.hosts.WatchHosts(host_service_pb2.WatchHostsRequest(from_revision=2))))
        await client.channel.close()


async def test_tombstones_are_remembered_within_a_bound(monkeypatch: pytest.MonkeyPatch, start: Start) -> None:
    monkeypatch.setattr(vm_watches, "REMEMBERED", 2)
    async with start() as api:
        admin = Client(api.address, f"Bearer {api.admin_token}")
        made = await create(admin, 4)
        revision = (await admin.vms.ListVms(List())).revision
        for vm_id in made:
            await admin.vms.TerminateVm(vm_service_pb2.TerminateVmRequest(id=vm_id))
        await eventually_ids(admin, "", [])
        with refused("REVISION_GONE"):
            await anext(aiter(admin.vms.WatchVms(Watch(from_revision=revision))))
        await admin.channel.close()


async def test_hosts_are_watched_with_their_load_and_their_end(admin: Client, nodes: Nodes, world: World) -> None:
    seen: dict[int, Any] = {}
    gone: list[int] = []
    stream = admin.hosts.WatchHosts(host_service_pb2.WatchHostsRequest())

    async def read() -> None:
        async for answer in stream:
            for host in answer.hosts:
                if host.HasField("spec"):
                    seen[host.id] = host
                else:
                    gone.append(host.id)

    task = asyncio.create_task(read())
    await nodes.hello("node-1")
    await eventually(lambda: 1 in seen)
    vm_id = (await create(admin))[0]
    await world.place(vm_id, 1)
    await eventually(lambda: seen[1].view.vms == 1 and seen[1].view.memory_mib_used == 128)
    revision = (await admin.hosts.ListHosts(host_service_pb2.ListHostsRequest())).revision
    await admin.vms.TerminateVm(vm_service_pb2.TerminateVmRequest(id=vm_id))
    await world.release(vm_id)
    await eventually(lambda: seen[1].view.vms == 0)
    await admin.hosts.DeleteHost(host_service_pb2.DeleteHostRequest(id=1))
    await eventually(lambda: gone == [1])
    stream.cancel()
    await asyncio.gather(task, return_exceptions=True)
    resumed = await anext(aiter(admin.hosts.WatchHosts(host_service_pb2.WatchHostsRequest(from_revision=revision))))
    assert [(host.id, host.HasField("spec")) for host in resumed.hosts] == [(1, False)]


# Waiting


def wait(vm_id: int, state: vm_pb2.VmState, seconds: float = 20) -> vm_service_pb2.WaitVmRequest:
    """A request to wait."""
    whole = int(seconds)
    return vm_service_pb2.WaitVmRequest(
        id=vm_id, state=state, timeout=Duration(seconds=whole, nanos=int((seconds - whole) * 1e9))
    )


async def test_who_waits_is_told_when_the_state_is_there(admin: Client, world: World) -> None:
    vm_id = (await create(admin))[0]
    waiting = asyncio.create_task(_waited(admin, wait(vm_id, vm_pb2.VM_STATE_STARTING)))
    await world.place(vm_id, 1)
    assert (await waiting).view.state == vm_pb2.VM_STATE_STARTING
    gone = asyncio.create_task(_waited(admin, wait(vm_id, vm_pb2.VM_STATE_DONE)))
    await admin.vms.TerminateVm(vm_service_pb2.TerminateVmRequest(id=vm_id))
    await world.release(vm_id)
    assert (await gone).view.state == vm_pb2.VM_STATE_DONE


async def _waited(client: Client, request: vm_service_pb2.WaitVmRequest) -> vm_pb2.Vm:
    vm: vm_pb2.Vm = await client.vms.WaitVm(request)
    return vm


async def test_who_waits_in_vain_is_told_where_it_stands_and_why(admin: Client, world: World) -> None:
    vm_id = (await create(admin))[0]
    await world.pend(vm_id, "NO_HOST_FITS", "0 of 2 hosts have the memory")
    await eventually_ids(admin, "reason=NO_HOST_FITS", [vm_id])
    with refused("NOT_REACHED", words="NO_HOST_FITS: 0 of 2 hosts have the memory") as refusal:
        await admin.vms.WaitVm(wait(vm_id, vm_pb2.VM_STATE_RUNNING, 0.2))
    assert refusal.error.metadata["state"] == "PENDING"


async def test_who_waits_for_what_will_not_come_is_told_at_once(admin: Client) -> None:
    held, ended = (await create(admin, is_held=True))[0], (await create(admin))[0]
    with refused("STATE_UNREACHABLE", words="HELD"):
        await admin.vms.WaitVm(wait(held, vm_pb2.VM_STATE_RUNNING))
    waiting = asyncio.create_task(_waited(admin, wait(ended, vm_pb2.VM_STATE_RUNNING)))
    await admin.vms.ListVms(List())
    await admin.vms.TerminateVm(vm_service_pb2.TerminateVmRequest(id=ended))
    with refused("STATE_UNREACHABLE"):
        await waiting


async def test_waiting_needs_a_state_and_a_time_within_bounds(admin: Client) -> None:
    vm_id = (await create(admin))[0]
    with refused("FIELD_INVALID", "state"):
        await admin.vms.WaitVm(vm_service_pb2.WaitVmRequest(id=vm_id))
    with refused("FIELD_INVALID", "timeout"):
        await admin.vms.WaitVm(wait(vm_id, vm_pb2.VM_STATE_RUNNING, 3601))
