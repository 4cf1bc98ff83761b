"""What the store does beside reading and writing: ids, leases, registration, space, compaction, the log of changes."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import Any, cast

import pytest

from moln.etcd.v1 import etcd_pb2 as pb
from moln.operations.v1.records_pb2 import ProcessRecord
from services.common.store import Compacted, Store, StoreFull, Txn, key
from services.common.store.compaction import Compactor
from services.common.store.leases import RequestLeases
from tests.integration.common.store.things import adding, create, named, opened, spec, value_of
from tests.support.etcd import EtcdServer
from tests.support.eventually import eventually


def process_records(store: Store) -> list[ProcessRecord]:
    """The processes that a cache shows."""
    return [cast(ProcessRecord, parts[""].value) for parts in store.cache.table("process").values()]


async def test_ids_are_unique_across_two_stores(etcd: EtcdServer) -> None:
    async with opened(etcd.settings) as one, opened(etcd.settings) as two:
        sizes = [1, 3, 1, 200, 7, 1, 1, 40] * 5
        taken = await asyncio.gather(*(store.ids.take("thing", n) for n in sizes for store in (one, two)))
        ids = [id for some in taken for id in some]
        assert len(set(ids)) == len(ids) == 2 * sum(sizes)
        assert min(ids) == 1
        assert all(some == sorted(some) for some in taken)


async def test_ids_of_different_kinds_do_not_disturb_each_other(etcd: EtcdServer) -> None:
    async with opened(etcd.settings) as store:
        assert await store.ids.take("one", 2) == [1, 2]
        assert await store.ids.take("two", 2) == [1, 2]


async def test_ids_that_were_not_used_are_given_back_at_the_end_and_never_given_twice(etcd: EtcdServer) -> None:
    async with opened(etcd.settings) as store:
        assert await store.ids.take("thing", 3) == [1, 2, 3]
    async with opened(etcd.settings) as store:
        assert await store.ids.take("thing", 1) == [4]
        async with opened(etcd.settings) as other:
            later = await other.ids.take("thing", 1)
            assert later > [4]
    async with opened(etcd.settings) as store:
        assert await store.ids.take("thing", 1) > later


async def test_a_process_is_registered_while_it_runs_and_ticks(etcd: EtcdServer) -> None:
    async with opened(etcd.settings, tick=0.1) as watcher:
        async with opened(etcd.settings, tick=0.1) as store:
            await eventually(lambda: len(process_records(watcher)) == 2)
            store.process.report(problems=["too hot"], history_revision=7)
            await eventually(lambda: [r.history_revision for r in process_records(watcher) if r.problems] == [7])
            entry = watcher.cache.get("process", store.process.uuid)
            assert entry is not None
            await eventually(lambda: _modified(watcher, store.process.uuid) > entry.mod_revision)
        await eventually(lambda: len(process_records(watcher)) == 1)


def _modified(store: Store, process: str) -> int:
    entry = store.cache.get("process", process)
    return entry.mod_revision if entry is not None else 0


async def test_what_hangs_on_a_process_goes_with_it(etcd: EtcdServer) -> None:
    async with opened(etcd.settings) as watcher:
        async with opened(etcd.settings) as store:
            await store.commit(Txn().put(spec(1), named(1), lease=await store.process_lease()))
        await eventually(lambda: value_of(watcher, 1) is None)


async def test_all_processes_share_the_lease_of_the_hour(etcd: EtcdServer) -> None:
    now = [3600.0 * 1000]
    async with opened(etcd.settings) as one, opened(etcd.settings) as two:
        first, second = (RequestLeases(store.client, lambda: now[0]) for store in (one, two))
        lease = await first.current()
        assert await second.current() == await first.current() == lease
        now[0] += 3600
        assert await second.current() == lease + 1
        assert await one.request_lease() == await two.request_lease()
        await one.commit(Txn().put(spec(1), named(1), lease=lease))


async def test_a_filling_etcd_refuses_creations_first_and_deletions_never() -> None:
    full = EtcdServer(quota_bytes=16 * 1024 * 1024)
    try:
        full.start()
        await _fill(full)
    finally:
        full.close()


async def _fill(full: EtcdServer) -> None:
    async with opened(full.settings, space_interval=3600.0) as store:
        await store.commit(create(1))
        store.space.share = 0.70
        with pytest.raises(StoreFull, match="nothing new is created"):
            await store.commit(create(2))
        await store.commit(Txn().put(spec(1), named(5)))
        store.space.share = 0.85
        for txn in (Txn().put(spec(1), named(6)), Txn().fold(key("count", 1), adding(1))):
            with pytest.raises(StoreFull, match="only deletions pass"):
                await store.commit(txn)
        store.space.share = 0.0
        await eventually(lambda: _is_full_after_another(store))
        store.space.share = 0.0
        results = await store.commit_all([Txn().delete(spec(1)), Txn().present(spec(9)).delete(spec(9))])
        assert isinstance(results[0], int)
        assert value_of(store, 1) is None
        assert "condition 'present' does not hold" in str(results[1])
        await store.commit(Txn().delete_prefix("/moln/thing/"))
        compactor = Compactor(store.client, store.cache, replace(full.settings, keep_history=0.0))
        assert await compactor.step(None) > 0
        await store.commit(create(3))
        await store.space.look()
        assert store.space.share < 0.5


def _raw_put(name: str, value: bytes) -> bytes:
    request = pb.TxnRequest()
    put = request.success.add().request_put
    put.key, put.value = name.encode(), value
    return request.SerializeToString()


async def test_compaction_keeps_the_age_that_is_set_and_what_the_slowest_keeper_needs(etcd: EtcdServer) -> None:
    now = [0.0]
    async with opened(etcd.settings, tick=3600.0, lease_ttl=3600) as store:
        compactor = Compactor(store.client, store.cache, replace(etcd.settings, keep_history=600.0), lambda: now[0])
        revisions = []
        for id in range(1, 6):
            revisions.append(await store.commit(create(id)))
            assert await compactor.step(None) == 0
            now[0] += 100
        now[0] = 650.0
        assert await compactor.step(None) == revisions[0]
        now[0] = 1050.0
        assert await compactor.step(revisions[2]) == revisions[2]
        assert await compactor.step(revisions[2]) == 0
        assert await compactor.step(None) >= revisions[4]
        with pytest.raises(Compacted):
            async for _ in store.list_at(revisions[3], ["thing"]):
                pass


async def test_compaction_removes_what_dead_processes_left_of_their_lanes(etcd: EtcdServer) -> None:
    async with opened(etcd.settings) as store:
        await store.commit(create(1))
        await store.client.txn(_raw_put("/moln/lane/dead/0-1", b"9"))
        compactor = Compactor(store.client, store.cache, replace(etcd.settings, keep_history=0.0))
        await store.commit(create(2))
        await compactor.step(None)
        assert {kv.key.split(b"/")[3].decode() for kv in await lanes(store)} == {store.process.uuid}
    async with opened(etcd.settings) as store:
        assert not await lanes(store)


async def _is_full_after_another(store: Store) -> bool:
    number = len(store.cache.ids("thing"))
    try:
        await store.commit(Txn().put(key("thing", 100 + number, "big"), bytes(900_000)))
    except StoreFull:
        return True
    return False


async def lanes(store: Store) -> list[pb.KeyValue]:
    """The lane keys in etcd."""
    request = pb.RangeRequest(key=b"/moln/lane/", range_end=b"/moln/lane0")
    return list((await store.client.range(request.SerializeToString())).kvs)


async def test_two_compactors_do_not_disturb_each_other(etcd: EtcdServer) -> None:
    async with opened(etcd.settings) as store:
        settings = replace(etcd.settings, keep_history=0.0)
        one, two = (Compactor(store.client, store.cache, settings) for _ in range(2))
        await store.commit(create(1))
        first = await one.step(None)
        assert first > 0
        assert await two.step(first) == first


async def test_the_log_has_every_change_once_in_order_also_over_a_restart_of_etcd(etcd: EtcdServer) -> None:
    async with opened(etcd.settings, tick=3600.0) as store:
        first = await store.current_revision() + 1
        told: list[tuple[int, Any]] = []
        async with aclosing(store.tail(first)) as tail:
            reading = asyncio.create_task(_read(tail, told))
            expected = []
            for id in range(1, 6):
                created = await store.commit(create(id))
                changed = await store.commit(Txn().put(spec(id), named(id + 10)))
                deleted = await store.commit(Txn().delete(spec(id)))
                small, large = named(id).SerializeToString(), named(id + 10).SerializeToString()
                expected += [
                    (created, [(spec(id), small, None)]),
                    (changed, [(spec(id), large, small)]),
                    (deleted, [(spec(id), None, large)]),
                ]
                if id == 3:
                    etcd.kill()
                    etcd.start()
            await eventually(lambda: len(_things(told)) == len(expected))
            assert _things(told) == expected
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


async def _read(tail: Any, told: list[tuple[int, Any]]) -> None:
    async for steps in tail:
        told += steps


def _things(told: list[tuple[int, Any]]) -> list[tuple[int, list[Any]]]:
    steps = [(revision, [tuple(event) for event in events if "/thing/" in event.key]) for revision, events in told]
    return [(revision, events) for revision, events in steps if events]


async def test_a_log_from_a_forgotten_revision_says_from_where_on_there_is_one(etcd: EtcdServer) -> None:
    async with opened(etcd.settings) as store:
        first = await store.commit(create(1))
        await store.commit(create(2))
        last = await store.commit(create(3))
        await store.client.compact(pb.CompactionRequest(revision=last).SerializeToString())
        with pytest.raises(Compacted) as gone:
            async with aclosing(store.tail(first)) as tail:
                async for _ in tail:
                    pass
        assert gone.value.compact_revision == last
