"""The api as a process: founding, revisions asked for, a store that is away, several side by side, an orderly end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from moln.compute.v1 import host_service_pb2, template_pb2, vm_pb2, vm_service_pb2
from moln.iam.v1 import user_service_pb2
from moln.operations.v1 import operations_service_pb2
from services.api.controllers.founding import found_cloud
from services.api.index.cloud import CloudIndex
from services.api.settings import Settings
from services.common.domain.keys import KEYS
from services.common.store import ProcessInfo, Store
from tests.integration.api.conftest import Nodes, Start
from tests.integration.api.process import ApiProcess
from tests.integration.api.running import Client, Clients, Running, refused
from tests.integration.api.world import World
from tests.support.etcd import EtcdServer
from tests.support.eventually import eventually
from tests.support.processes import Processes

VM = template_pb2.VmTemplate(memory_mib=64)
Create, Get = vm_service_pb2.CreateVmRequest, vm_service_pb2.GetVmRequest
WHO = user_service_pb2.WhoAmIRequest()


# Founding


async def test_a_second_start_founds_nothing_anew(start: Start) -> None:
    tokens, uids = [], []
    for _ in range(2):
        async with start() as api:
            admin = Client(api.address, f"Bearer {api.admin_token}")
            status = await admin.operations.GetStatus(operations_service_pb2.GetStatusRequest())
            tokens.append(api.admin_token)
            uids.append(status.cloud_uid)
            assert (await admin.users.WhoAmI(WHO)).id == 1
            await admin.channel.close()
    assert len(set(tokens)) == len(set(uids)) == 1


async def test_of_two_that_start_at_once_one_founds_and_only_its_token_is_left(start: Start) -> None:
    async with AsyncExitStack() as stack:
        apis = await asyncio.gather(*[stack.enter_async_context(start(name)) for name in ("one", "two", "three")])
        files = [api.settings.state_dir / "admin.token" for api in apis]
        (token,) = [file.read_text().strip() for file in files if file.exists()]
        for api in apis:
            client = Client(api.address, f"Bearer {token}", [("moln-min-revision", "STRONG")])
            assert (await client.users.WhoAmI(WHO)).spec.name == "admin"
            await client.channel.close()


async def test_a_token_that_was_written_before_a_crash_is_used(etcd: EtcdServer, start: Start, folder: Any) -> None:
    state = folder / "api"
    state.mkdir()
    (state / "admin.token").write_text("moln_written-before-the-crash\n")
    async with start() as api:
        client = Client(api.address, "Bearer moln_written-before-the-crash")
        assert (await client.users.WhoAmI(WHO)).id == 1
        await client.channel.close()


async def test_founding_again_by_hand_changes_nothing(etcd: EtcdServer, api: Running, folder: Any) -> None:
    async with await Store.open(etcd.settings, keys=KEYS, process=ProcessInfo("test")) as store:
        cloud = CloudIndex(store)
        cloud.start()
        before = await store.current_revision()
        await found_cloud(store, cloud, folder / "other.token")
        assert not (folder / "other.token").exists()
        assert len(cloud.catalog.by_user_name) == 1
        assert await store.current_revision() >= before


# Revisions


async def test_every_reply_says_its_revision_and_a_request_may_ask_for_one(clients: Clients, start: Start) -> None:
    admin = clients.admin()
    call = admin.vms.CreateVm(Create(template=VM))
    vm = await call
    revision = dict(await call.trailing_metadata())["moln-revision"]
    assert int(revision) >= vm.view.resource_version
    async with start("second") as second:
        reader = Client(second.address, f"Bearer {clients.api.admin_token}", [("moln-min-revision", str(revision))])
        assert (await reader.vms.GetVm(Get(id=vm.id))).uid == vm.uid
        strong = Client(second.address, f"Bearer {clients.api.admin_token}", [("moln-min-revision", "STRONG")])
        for _ in range(10):
            made = await admin.vms.CreateVm(Create(template=VM))
            assert (await strong.vms.GetVm(Get(id=made.id))).uid == made.uid
        await reader.channel.close()
        await strong.channel.close()


async def test_a_revision_that_is_none_is_refused_and_one_that_never_comes_is_not_waited_for_forever(
    clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    from services.api.access import gate

    monkeypatch.setattr(gate, "_WAIT_S", 0.1)
    with refused("FIELD_INVALID", words="moln-min-revision"):
        await clients.admin(("moln-min-revision", "soon")).users.WhoAmI(WHO)
    with refused("STORE_STALE"):
        await clients.admin(("moln-min-revision", "1000000")).users.WhoAmI(WHO)


# A store that is away


async def test_an_api_that_hears_nothing_of_the_store_does_not_answer_from_memory(
    impatient_ticks: None, api: Running, admin: Client, etcd: EtcdServer
) -> None:
    vm = await admin.vms.CreateVm(Create(template=VM))
    etcd.pause()
    try:

        async def is_stale() -> bool:
            try:
                await admin.vms.GetVm(Get(id=vm.id))
            except grpc.aio.AioRpcError as err:
                assert err.code() == grpc.StatusCode.UNAVAILABLE
                return True
            return False

        await eventually(is_stale)
        with refused("STORE_STALE", words="etcd"):
            await admin.vms.ListVms(vm_service_pb2.ListVmsRequest())
    finally:
        etcd.resume()

    async def is_back() -> bool:
        try:
            return bool((await admin.vms.GetVm(Get(id=vm.id))).uid)
        except grpc.aio.AioRpcError:
            return False

    await eventually(is_back)
    assert (await admin.vms.CreateVm(Create(template=VM))).id


async def test_agents_outlast_a_store_that_is_away(
    impatient_ticks: None, admin: Client, nodes: Nodes, etcd: EtcdServer, world: World
) -> None:
    hello = await nodes.hello("node-1")
    async with nodes.again(hello) as agent:
        await agent.sync()
        etcd.kill()
        etcd.start()

        async def is_up() -> bool:
            try:
                host = await admin.hosts.GetHost(host_service_pb2.GetHostRequest(id=1))
            except grpc.aio.AioRpcError:
                return False
            await agent.send(heartbeat=1)
            record = world.value("hostconn", 1)
            return host.view.state == 2 and record is not None and record.is_synced

        await eventually(is_up)
        assert not agent.has_ended


# Several side by side


async def test_what_one_api_writes_all_show_and_one_leads(clients: Clients, start: Start, admin: Client) -> None:
    async with start("second") as second:
        other = Client(second.address, f"Bearer {clients.api.admin_token}", [("moln-min-revision", "STRONG")])
        vm = await admin.vms.CreateVm(Create(template=VM))
        assert (await other.vms.GetVm(Get(id=vm.id))).uid == vm.uid
        status = await other.operations.GetStatus(operations_service_pb2.GetStatusRequest())
        assert [process.kind for process in status.processes] == ["api", "api"]
        assert status.leaders["api"] == clients.api.address
        await other.channel.close()


@pytest.mark.timeout(120)
async def test_another_api_collects_what_a_killed_leader_left(
    settings_of: Callable[[str], Settings], running: Processes, world: World, admin: Client, api: Running
) -> None:
    """The one in this process leads; the killed one does not matter to it, and the other way round."""
    other = ApiProcess(running, settings_of("other"))
    await other.start()
    client = Client(other.addresses["grpc"], f"Bearer {api.admin_token}")
    vm = await client.vms.CreateVm(Create(template=VM))
    api.run.stop("the leader goes")
    await world.volumes(vm.id)
    await client.vms.TerminateVm(vm_service_pb2.TerminateVmRequest(id=vm.id))
    await world.release(vm.id)
    await eventually(lambda: not world.store.cache.object("vm", vm.id), what="the new leader collects")
    await client.channel.close()
    assert other.stop() == 0


# The end


async def test_streams_end_orderly_when_the_api_stops(start: Start) -> None:
    async with start() as api:
        admin = Client(api.address, f"Bearer {api.admin_token}")
        held = await admin.vms.CreateVm(Create(template=VM))
        watch = admin.vms.WatchVms(vm_service_pb2.WatchVmsRequest())
        events = admin.operations.WatchEvents(operations_service_pb2.WatchEventsRequest())
        hosts = admin.hosts.WatchHosts(host_service_pb2.WatchHostsRequest())
        async with await Nodes(api, admin).agent() as agent:
            await agent.sync()
            wait = vm_service_pb2.WaitVmRequest(id=held.id, state=vm_pb2.VM_STATE_RUNNING)
            waiting = asyncio.create_task(_awaited(admin.vms.WaitVm(wait)))
            await watch.read()
            await hosts.read()
            await admin.vms.GetVm(Get(id=held.id))
            api.run.stop("the test says so")
            with refused("SERVICE_STOPPING"):
                await waiting
            await eventually(lambda: agent.has_ended)
        for stream in (watch, hosts, events):
            while await stream.read() is not grpc.aio.EOF:
                continue
            assert await stream.code() == grpc.StatusCode.OK
        await admin.channel.close()


async def _awaited(call: Any) -> Any:
    return await call


async def test_health_tells_of_the_end_before_it_comes(start: Start) -> None:
    async with start() as api, grpc.aio.insecure_channel(api.address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        api.run.stop("the test says so")
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()


@pytest.mark.timeout(120)
async def test_a_process_that_is_asked_to_end_ends_well(
    settings_of: Callable[[str], Settings], running: Processes, etcd: EtcdServer
) -> None:
    process = ApiProcess(running, settings_of("api"))
    await process.start()
    client = process.admin()
    vm = await client.vms.CreateVm(Create(template=VM))
    assert process.stop() == 0
    assert "Traceback" not in running.output("api")
    await process.start()
    again = process.admin()
    assert (await again.vms.GetVm(Get(id=vm.id))).uid == vm.uid
    for each in (client, again):
        await each.channel.close()
    assert process.stop() == 0


@pytest.mark.timeout(120)
async def test_what_it_cannot_do_without_is_said_in_one_line(
    settings_of: Callable[[str], Settings], running: Processes, api: Running
) -> None:
    import dataclasses

    taken = dataclasses.replace(settings_of("taken"), listen=api.address)
    with pytest.raises(RuntimeError, match="in use"):
        await ApiProcess(running, taken).start()
    missing = dataclasses.replace(settings_of("missing"), service_secret_file=api.settings.state_dir / "nothing")
    with pytest.raises(RuntimeError, match="service secret"):
        await ApiProcess(running, missing).start()
    assert "Traceback" not in running.output("taken") + running.output("missing")


async def test_transitions_and_states_are_counted(api: Running, admin: Client) -> None:
    await admin.vms.CreateVm(Create(template=VM))
    assert api.metric("moln_api_vm_transitions_total", state="PENDING") == 1
    assert api.metric("moln_api_vms", state="PENDING") == 1
    assert api.metric("moln_api_rpc_calls_total", method="moln.compute.v1.VmService/CreateVm", code="OK") == 1
