"""The watch cache on a real etcd: it holds what etcd holds, in whole revisions, whatever happens to its stream."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from moln.etcd.v1 import etcd_pb2 as pb
from moln.operations.v1.records_pb2 import RequestRecord
from services.common.store import (
    Change,
    Compacted,
    Store,
    StoreSettings,
    StoreStale,
    StoreUnavailable,
    Txn,
    key,
    server,
)
from tests.integration.common.store.proxy import proxied
from tests.integration.common.store.things import counted, create, named, opened, spec, value_of
from tests.support.etcd import EtcdServer
from tests.support.eventually import eventually

PIECE = 200 * 1024


async def compact(store: Store) -> int:
    """Forgets all revisions but the newest."""
    revision = await store.current_revision()
    await store.client.compact(pb.CompactionRequest(revision=revision, physical=True).SerializeToString())
    return revision


def contents(store: Store) -> dict[str, tuple[bytes, int, int]]:
    """All that a store's cache holds of things and counts."""
    entries = [e for kind in ("thing", "count") for parts in store.cache.table(kind).values() for e in parts.values()]
    return {entry.key: (entry.raw, entry.create_revision, entry.mod_revision) for entry in entries}


async def test_a_store_that_opens_late_holds_what_was_written_before(etcd: EtcdServer) -> None:
    async with opened(etcd.settings) as early:
        await early.commit_all([create(id) for id in range(1, 401)])
        await early.commit(Txn().delete(spec(7)))
        async with opened(etcd.settings, page_keys=50) as late:
            assert contents(late) == contents(early)
            assert len(late.cache.ids("thing")) == 399
            assert late.cache.revision >= max(modified for _, _, modified in contents(early).values())


async def test_lists_are_read_at_one_revision_in_pages(etcd: EtcdServer) -> None:
    async with opened(etcd.settings, page_keys=7) as store:
        revision = max(r for r in await store.commit_all([create(id) for id in range(1, 31)]) if isinstance(r, int))
        seen: list[int] = []
        async for entry in store.list_at(revision, ["thing"]):
            if not seen:
                await store.commit_all([Txn().delete(spec(id)) for id in range(1, 31)])
                await store.commit(create(99))
            seen.append(int(entry.id))
        assert seen == list(range(1, 31))


async def test_a_list_at_a_forgotten_revision_says_so(etcd: EtcdServer) -> None:
    async with opened(etcd.settings) as store:
        first = await store.commit(create(1))
        await store.commit(create(2))
        await compact(store)
        with pytest.raises(Compacted):
            async for _ in store.list_at(first, ["thing"]):
                pass


async def test_only_wanted_kinds_and_parts_are_held(etcd: EtcdServer) -> None:
    async with opened(etcd.settings) as all_of_it:
        await all_of_it.commit(create(1).put(key("thing", 1, "note/a"), named(1)))
        async with opened(etcd.settings, kinds={"thing": frozenset({"note"})}) as some:
            await all_of_it.commit(create(2).put(key("thing", 2, "note/b"), named(2)).put(key("count", 1), b""))
            await some.cache.wait(all_of_it.cache.revision, 10)
            assert [list(some.cache.object("thing", id)) for id in (1, 2)] == [["note/a"], ["note/b"]]
            assert not some.cache.table("count")
            assert len(some.cache.table("process")) == 2


async def test_a_value_that_is_not_to_be_cached_leaves_only_its_revision(etcd: EtcdServer) -> None:
    async with opened(etcd.settings) as store:
        revision = await store.commit(Txn().put(key("thing", 1, "secret"), named(7)))
        entry = store.cache.get("thing", 1, "secret")
        assert entry is not None
        assert (entry.value, entry.raw, entry.mod_revision) == (None, b"", revision)
        read = await store.read(key("thing", 1, "secret"))
        assert read is not None
        assert read.raw == named(7).SerializeToString()


async def test_subscribers_hear_of_every_step_before_those_who_wait_for_it(etcd: EtcdServer) -> None:
    async with opened(etcd.settings) as store:
        heard: list[str] = []
        store.cache.subscribe(lambda changes, _: heard.extend(repr(change) for change in changes), kinds=("thing",))
        for txn in (create(1), Txn().put(spec(1), named(5)), Txn().delete(spec(1)), Txn().delete(spec(1))):
            await store.commit(txn)
            heard.append("committed")
        told = [line.split()[-2] for line in heard if line != "committed"]
        assert told == ["created", "changed", "deleted"]
        assert [line == "committed" for line in heard] == [False, True, False, True, False, True, True]


async def test_a_subscriber_that_fails_harms_nobody_else(etcd: EtcdServer) -> None:
    async with opened(etcd.settings) as store:
        heard: list[int] = []

        def fail(changes: Sequence[Change], revision: int) -> None:
            raise RuntimeError("a mistake")

        store.cache.subscribe(fail)
        unsubscribe = store.cache.subscribe(lambda _, revision: heard.append(revision), kinds={"thing"})
        revision = await store.commit(create(1))
        unsubscribe()
        await store.commit(create(2))
        assert len(heard) == 1
        assert heard[0] >= revision


async def test_a_value_that_does_not_parse_is_named_and_the_last_good_one_is_served(etcd: EtcdServer) -> None:
    async with opened(etcd.settings) as store:
        await store.commit(create(1, 5))
        await store.commit(Txn().put(spec(1), b"\xff\xff").put(spec(2), b"\xff"))
        assert (value_of(store, 1), value_of(store, 2)) == (5, None)
        assert set(store.cache.quarantine) == {spec(1), spec(2)}
        assert "NameRecord" in store.cache.quarantine[spec(1)]
        async with opened(etcd.settings) as late:
            assert set(late.cache.quarantine) == {spec(1), spec(2)}
        await store.commit(Txn().put(spec(1), named(6)).delete(spec(2)))
        assert (value_of(store, 1), dict(store.cache.quarantine)) == (6, {})


async def test_a_stream_that_is_cut_between_fragments_of_a_revision_is_resumed_before_it(folder: Path) -> None:
    small = EtcdServer(max_request_bytes=1536 * 1024)
    try:
        small.start()
        await _cut_between_fragments(small, folder)
    finally:
        small.close()


async def _cut_between_fragments(small: EtcdServer, folder: Path) -> None:
    async with (
        proxied(server.socket_path(small.folder), folder) as proxy,
        opened(small.settings) as writer,
        opened(small.settings, endpoints=(proxy.endpoint,)) as reader,
    ):
        steps: list[set[bytes]] = []

        def check(changes: Sequence[Change], revision: int) -> None:
            for at in {change.revision for change in changes}:
                step = [change for change in changes if change.revision == at]
                assert len(step) == 6
                steps.append({change.new.raw[-1:] for change in step if change.new is not None})

        reader.cache.subscribe(check, kinds=("thing",))
        for cut_after in (2_500_000, 3_700_000, 5_100_000):
            proxy.accepts = False
            proxy.cut()
            for round in range(8):
                txn = Txn()
                for id in range(6):
                    record = RequestRecord(digest=bytes([round]) * PIECE)
                    txn.put(key("thing", id, "big"), record)
                revision = await writer.commit(txn)
            cuts = proxy.cuts
            proxy.cut_in(cut_after)
            proxy.accepts = True
            await reader.cache.wait(revision, 60)
            assert proxy.cuts == cuts + 1
            assert contents(reader) == contents(writer)
        assert len(steps) == 24
        assert all(len(step) == 1 for step in steps)
        assert reader.watcher.relists == 0


async def test_compaction_while_the_watch_is_paused_is_made_up_for_by_listing(etcd: EtcdServer, folder: Path) -> None:
    async with (
        proxied(server.socket_path(etcd.folder), folder) as proxy,
        opened(etcd.settings) as writer,
        opened(etcd.settings, endpoints=(proxy.endpoint,)) as reader,
    ):
        await writer.commit_all([create(id) for id in range(1, 11)])
        await reader.cache.wait(writer.cache.revision, 10)
        told: list[Change] = []
        reader.cache.subscribe(lambda changes, _: told.extend(changes), kinds=("thing",))
        proxy.accepts = False
        proxy.cut()
        await writer.commit(Txn().delete(spec(1)).put(spec(2), named(77)).put(spec(11), named(11)))
        await writer.commit(Txn().delete(spec(3)))
        await writer.commit(create(3, 33))
        revision = await compact(writer)
        proxy.accepts = True
        await reader.cache.wait(revision, 30)
        assert reader.watcher.relists == 1
        assert contents(reader) == contents(writer)
        gone = [int(change.id) for change in told if change.new is None]
        fresh = [int(change.id) for change in told if change.new is not None]
        assert (gone, sorted(fresh)) == ([1], [2, 3, 11])


async def test_what_was_quarantined_and_is_gone_after_listing_is_forgotten(etcd: EtcdServer, folder: Path) -> None:
    async with (
        proxied(server.socket_path(etcd.folder), folder) as proxy,
        opened(etcd.settings) as writer,
        opened(etcd.settings, endpoints=(proxy.endpoint,)) as reader,
    ):
        await writer.commit(Txn().put(spec(1), b"\xff").put(key("count", 1), b"\xff"))
        await reader.cache.wait(writer.cache.revision, 10)
        assert len(reader.cache.quarantine) == 2
        proxy.accepts = False
        proxy.cut()
        await writer.commit(Txn().delete(spec(1)).delete(key("count", 1)))
        revision = await compact(writer)
        proxy.accepts = True
        await reader.cache.wait(revision, 30)
        assert not reader.cache.quarantine


async def test_a_watch_that_is_far_behind_lists_instead_of_catching_up(etcd: EtcdServer, folder: Path) -> None:
    async with (
        proxied(server.socket_path(etcd.folder), folder) as proxy,
        opened(etcd.settings) as writer,
        opened(etcd.settings, endpoints=(proxy.endpoint,), relist_after=20) as reader,
    ):
        proxy.accepts = False
        proxy.cut()
        for id in range(1, 31):
            await writer.commit(create(id))
        proxy.accepts = True
        await reader.cache.wait(writer.cache.revision, 30)
        assert reader.watcher.relists == 1
        assert contents(reader) == contents(writer)


async def test_the_watch_resumes_after_etcd_was_killed(etcd: EtcdServer) -> None:
    async with opened(etcd.settings) as one, opened(etcd.settings) as two:
        for id in range(1, 4):
            await one.commit(create(id))
            etcd.kill()
            etcd.start()
            await one.commit(create(id + 10))
            await two.cache.wait(one.cache.revision, 30)
            assert contents(one) == contents(two)
        assert one.watcher.relists == two.watcher.relists == 0


async def test_an_etcd_whose_history_was_lost_is_listed_again(etcd: EtcdServer) -> None:
    async with opened(etcd.settings) as store:
        await store.commit_all([create(id) for id in range(1, 11)], wait=True)
        for id in range(20):
            await store.commit(Txn().put(spec(id), named(id)))
        etcd.kill()
        etcd.forget()
        etcd.start()
        await eventually(lambda: not store.cache.table("thing"))
        await store.commit(create(1))
        assert value_of(store, 1) == 1


async def test_a_silent_etcd_makes_the_cache_stale_and_its_return_makes_it_fresh(etcd: EtcdServer) -> None:
    async with opened(etcd.settings, stale_after=1.0, tick=0.2) as store:
        store.cache.check_fresh()
        etcd.pause()

        def is_stale() -> bool:
            try:
                store.cache.check_fresh()
            except StoreStale as err:
                return "nothing heard from etcd" in str(err)
            return False

        await eventually(is_stale)
        etcd.resume()
        await eventually(lambda: not is_stale())
        await store.commit(create(1))


async def test_waiting_for_a_revision_that_does_not_come_ends_in_time(etcd: EtcdServer) -> None:
    async with opened(etcd.settings) as store:
        with pytest.raises(StoreStale, match="revision 1000000 has not come"):
            await store.cache.wait(1_000_000, 0.05)
        await store.cache.wait(await store.current_revision(), 10)


async def test_ids_come_in_order_and_from_where_one_wants(etcd: EtcdServer) -> None:
    async with opened(etcd.settings) as store:
        await store.commit_all([create(id) for id in (5, 3, 9, 1, 7)])
        await store.commit(Txn().delete(spec(3)))
        assert [int(id) for id in store.cache.ids("thing")] == [1, 5, 7, 9]
        assert [int(id) for id in store.cache.ids("thing", after="0000000004", limit=2)] == [5, 7]
        assert [int(id) for id in store.cache.ids("thing", after="0000000005")] == [7, 9]


async def test_no_etcd_is_one_clear_line(folder: Path) -> None:
    settings = StoreSettings(endpoints=(f"unix:{folder}/none",))
    with pytest.raises(StoreUnavailable, match=r"no answer from etcd at unix:.* within 0.2 s: is it running\?"):
        async with opened(settings, open_timeout=0.2):
            pass


async def test_opening_waits_for_an_etcd_that_comes(etcd: EtcdServer) -> None:
    etcd.kill()
    opening = asyncio.create_task(_open_and_count(etcd))
    await asyncio.to_thread(etcd.start)
    assert await opening == 0


async def _open_and_count(etcd: EtcdServer) -> int:
    async with opened(etcd.settings) as store:
        return counted(store, "a")
