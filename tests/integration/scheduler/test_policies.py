"""Policies by VM, by cluster and by setting, and loads that the api writes: through the store, to the placement."""

from __future__ import annotations

from pathlib import Path

import pytest

from moln.compute.v1 import placement_pb2
from moln.scheduler.v1 import scheduler_service_pb2 as pb
from services.common.domain.caller import Caller
from services.common.runtime import SettingsError
from services.scheduler.settings import SchedulerSettings
from tests.integration.scheduler.conftest import Running, Start
from tests.integration.scheduler.test_service import client
from tests.integration.scheduler.world import World, template
from tests.support.eventually import eventually

P = placement_pb2.PlacementPolicy


def policy(number: placement_pb2.PlacementPolicy, weight: float = 0) -> placement_pb2.WeightedPolicy:
    return placement_pb2.WeightedPolicy(policy=number, weight=weight)


async def hosts_of(world: World, *vm_ids: int) -> list[int]:
    await eventually(lambda: len(world.placed()) >= max(vm_ids))
    return [world.host_of(vm_id) for vm_id in vm_ids]


async def test_a_vm_is_placed_by_its_own_policy_and_told_its_parts(
    world: World, scheduler: Running, secret_file: Path
) -> None:
    for host_id in (1, 2, 3):
        await world.host(host_id)
    await world.vms(range(1, 5), template(policies=[policy(P.PLACEMENT_POLICY_PACKING, 2)]))
    assert len(set(await hosts_of(world, 1, 2, 3, 4))) == 1
    async with client(scheduler.address, secret_file) as stub:
        answer = await stub.ExplainVm(
            pb.ExplainVmRequest(id=1), metadata=Caller(1, "root", is_admin=True).to_metadata()
        )
    best = answer.candidates[0]
    assert best.host_id == world.host_of(1)
    assert [(part.name, part.weight) for part in best.parts] == [("packing", 2.0)]
    assert best.score == pytest.approx(2 * best.parts[0].value)


async def test_a_clusters_policy_ranks_its_hosts_from_the_moment_it_is_set(world: World, scheduler: Running) -> None:
    for host_id in (1, 2, 3, 4):
        await world.host(host_id)
    await world.cluster(7, 3, 4, site="graz")
    wanted = template(requirement="CLUSTER = c7 & CLUSTER_LABEL_SITE = graz")
    await world.vms([1, 2], wanted)
    assert sorted(await hosts_of(world, 1, 2)) == [3, 4]
    await world.cluster(7, 3, 4, policies="PACKING", site="graz")
    await world.vms(range(3, 7), wanted)
    assert len(set(await hosts_of(world, 3, 4, 5, 6))) == 1


async def test_the_setting_ranks_where_nobody_else_says(world: World, start: Start) -> None:
    for host_id in (1, 2, 3):
        await world.host(host_id)
    async with start(policies=("load-aware=3", "packing")) as running:
        await eventually(lambda: running.metric("is_leader") == 1.0)
        for host_id, percent in ((1, 80.0), (2, 10.0), (3, 60.0)):
            await world.load(host_id, percent)
        await world.vm(1)
        assert await hosts_of(world, 1) == [2]
        await world.load(2, 95.0)
        await world.load(3, 5.0)
        await world.vm(2)
        assert await hosts_of(world, 2) == [3]


async def test_a_vm_that_waits_for_an_idle_host_is_placed_when_one_is(world: World, scheduler: Running) -> None:
    await world.host(1)
    await world.load(1, 70.0)
    await world.vm(1, template(requirement="LOAD_CPU < 50"))
    await eventually(lambda: world.pending(1)[0] == "NO_HOST_FITS")
    await world.load(1, 20.0)
    assert await hosts_of(world, 1) == [1]


async def test_two_vms_keep_apart_by_id_in_one_burst(world: World, scheduler: Running) -> None:
    await world.host(1, memory_mib=100_000)
    await world.host(2)
    apart = template(requirement="CURRENT_VMS != 2 & CURRENT_VMS != 1", rank="FREE_MEMORY")
    await world.vms([1, 2], apart)
    assert await hosts_of(world, 1, 2) == [1, 2]
    await world.vm(3, template(requirement="CURRENT_VMS @> 2", rank="FREE_MEMORY"))
    assert await hosts_of(world, 3) == [2]


def test_a_policy_that_there_is_not_is_a_bad_setting() -> None:
    with pytest.raises(SettingsError, match="policies: 'paking': there is no policy 'paking'"):
        SchedulerSettings(policies=("paking",)).ranked_by()
