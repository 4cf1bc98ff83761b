"""What the api measures of the life of VMs and of its store."""

from __future__ import annotations

from moln.compute.v1 import vm_pb2
from tests.integration.api.asking import becomes, reason_is, request
from tests.integration.api.conftest import Nodes
from tests.integration.api.running import Client, Running
from tests.integration.api.world import World
from tests.support.eventually import eventually

OLDEST = "moln_api_oldest_unreconciled_seconds"
PENDING = "moln_api_vm_pending_seconds_count"


async def test_the_time_of_waiting_is_counted_for_the_reason_that_it_had(
    api: Running, admin: Client, nodes: Nodes, world: World
) -> None:
    async with await nodes.agent() as agent:
        await agent.sync()
        vm = await admin.vms.CreateVm(request())
        await world.pend(vm.id, "NO_HOST_FITS", "none is large enough")
        await eventually(lambda: reason_is(admin, vm.id, "NO_HOST_FITS"), what="the reason is known")
        assert api.metric(OLDEST, state="PENDING") > 0
        assert api.metric(PENDING, reason="NO_HOST_FITS") == 0
        await world.place(vm.id, 1)
        await agent.start(await agent.order(vm.id))
        await becomes(admin, vm.id, vm_pb2.VM_STATE_RUNNING)
        assert api.metric(PENDING, reason="NO_HOST_FITS") == 1
        assert api.metric("moln_api_vm_start_seconds_count") == 1
        assert api.metric(OLDEST, state="PENDING") == 0
        assert api.metric(OLDEST, state="STARTING") == 0


async def test_a_vm_that_waited_before_the_api_started_is_the_oldest_after_it(
    api: Running, admin: Client, world: World, start: object
) -> None:
    await admin.vms.CreateVm(request())
    assert callable(start)
    async with start("second") as second:
        assert second.metric(OLDEST, state="PENDING") > 0


async def test_the_store_tells_its_lag_its_lease_and_its_batches(api: Running, admin: Client) -> None:
    await admin.vms.CreateVm(request())
    assert 0 < api.metric("moln_api_store_lease_margin_seconds") <= 10
    assert api.metric("moln_api_store_watch_silence_seconds") >= 0
    assert api.metric("moln_api_store_batch_members_count") >= 1
    await eventually(lambda: api.metric("moln_api_store_watch_lag_seconds") > 0, what="a tick came back")
