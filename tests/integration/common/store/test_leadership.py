"""Leaders on a real etcd: one at a time, and what a deposed one still sends has no effect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from moln.etcd.v1 import etcd_pb2 as pb
from services.common.store import Leadership, NotLeader, Store, Txn
from tests.integration.common.store.things import named, opened, spec, value_of
from tests.support.etcd import EtcdServer
from tests.support.eventually import eventually


class Reigns:
    """What the leaders of a test have lived through."""

    def __init__(self) -> None:
        self.begun: list[Leadership] = []
        self.present: list[str] = []

    async def reign(self, leadership: Leadership, who: str) -> None:
        """Leads until deposed."""
        self.begun.append(leadership)
        self.present.append(who)
        try:
            await asyncio.Event().wait()
        finally:
            self.present.remove(who)


@asynccontextmanager
async def campaigning(store: Store, reigns: Reigns, who: str) -> AsyncIterator[asyncio.Task[None]]:
    """A candidate, until the block ends."""
    task = asyncio.create_task(store.lead("boss", who, lambda leadership: reigns.reign(leadership, who)))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_one_of_several_leads_and_everyone_knows_its_address(etcd: EtcdServer) -> None:
    reigns = Reigns()
    async with opened(etcd.settings) as one, opened(etcd.settings) as two:
        async with campaigning(one, reigns, "one:1"), campaigning(two, reigns, "two:2"):
            await eventually(lambda: reigns.present)
            await eventually(lambda: one.leader_address("boss") == two.leader_address("boss") == reigns.present[0])
            assert len(reigns.begun) == 1
            assert one.cache.revision >= reigns.begun[0].create_revision
        await eventually(lambda: one.leader_address("boss") is None)


async def test_when_the_leader_ends_a_standby_takes_over_at_once(etcd: EtcdServer) -> None:
    reigns = Reigns()
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(opened(etcd.settings, lease_ttl=3600))
        two = await stack.enter_async_context(opened(etcd.settings))
        async with campaigning(one, reigns, "one"):
            await eventually(lambda: reigns.present == ["one"])
            await stack.enter_async_context(campaigning(two, reigns, "two"))
        await eventually(lambda: reigns.present == ["two"])
        assert reigns.begun[0].lost.is_set()


async def test_a_leader_whose_lease_has_ended_is_deposed_and_its_writes_are_refused(etcd: EtcdServer) -> None:
    reigns = Reigns()
    async with opened(etcd.settings) as one, opened(etcd.settings) as two, campaigning(one, reigns, "one"):
        await eventually(lambda: reigns.present == ["one"])
        old = reigns.begun[0]
        await one.commit(Txn(guard=old).put(spec(1), named(1)))
        async with campaigning(two, reigns, "two"):
            lease = await one.process_lease()
            await one.client.lease_revoke(pb.LeaseRevokeRequest(id=lease).SerializeToString())
            await eventually(lambda: reigns.present == ["two"] or len(reigns.begun) > 1)
            with pytest.raises(NotLeader):
                await one.commit(Txn(guard=old).put(spec(1), named(2)))
            assert value_of(one, 1) == 1
            assert old.lost.is_set()


async def test_a_process_that_lost_its_lease_gets_another_and_may_lead_again(etcd: EtcdServer) -> None:
    reigns = Reigns()
    async with opened(etcd.settings, tick=0.2) as store, campaigning(store, reigns, "one"):
        await eventually(lambda: reigns.present)
        lease = await store.process_lease()
        await store.client.lease_revoke(pb.LeaseRevokeRequest(id=lease).SerializeToString())
        await eventually(lambda: len(reigns.begun) == 2)
        assert await store.process_lease() != lease
        assert reigns.begun[1].create_revision > reigns.begun[0].create_revision
        await eventually(lambda: list(store.cache.ids("process")) == [store.process.uuid])


async def test_a_leader_deposed_by_an_outage_leads_again_after_it(etcd: EtcdServer) -> None:
    reigns = Reigns()
    async with (
        opened(etcd.settings, lease_ttl=2, tick=0.2, call_timeout=0.5) as store,
        campaigning(store, reigns, "one"),
    ):
        await eventually(lambda: reigns.present)
        etcd.kill()
        await eventually(lambda: not reigns.present)
        etcd.start()
        await eventually(lambda: len(reigns.begun) == 2)
        await store.commit(Txn(guard=reigns.begun[1]).put(spec(1), named(1)))


async def test_a_leader_that_fails_gives_its_place_up_and_campaigns_again(etcd: EtcdServer) -> None:
    begun: list[Leadership] = []

    async def fail_once(leadership: Leadership) -> None:
        begun.append(leadership)
        if len(begun) == 1:
            raise RuntimeError("a mistake")
        await asyncio.Event().wait()

    async with opened(etcd.settings) as store:
        task = asyncio.create_task(store.lead("boss", "here", fail_once))
        await eventually(lambda: len(begun) == 2)
        assert begun[0].lost.is_set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
