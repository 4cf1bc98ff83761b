"""Transactions on a real etcd: each gets its own answer, whoever it travels with and whatever becomes of the answer."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from moln.operations.v1.records_pb2 import NameRecord
from services.common.store import (
    Conflict,
    Leadership,
    NotLeader,
    Refused,
    StoreStale,
    StoreUnavailable,
    Txn,
    ValueTooLarge,
    key,
    server,
)
from tests.integration.common.store.proxy import proxied
from tests.integration.common.store.things import (
    Full,
    adding,
    counted,
    create,
    hold_watch,
    named,
    opened,
    spec,
    value_of,
)
from tests.support.etcd import EtcdServer
from tests.support.eventually import eventually


async def test_a_committed_transaction_is_in_the_cache_when_commit_returns(etcd: EtcdServer) -> None:
    async with opened(etcd.settings) as store:
        revision = await store.commit(create(1, 7))
        assert store.cache.revision >= revision
        assert value_of(store, 1) == 7


@pytest.mark.parametrize(
    ("txn", "compare"),
    [
        (Txn().absent(spec(1)), "absent"),
        (Txn().present(spec(2)), "present"),
        (Txn().unchanged(spec(1), 1), "unchanged"),
        (Txn().unchanged(spec(2), 5), "unchanged"),
        (Txn().value_is(spec(1), b"other"), "value is"),
        (Txn().value_is(spec(2), b""), "value is"),
        (Txn().none_under(key("thing", 1) + "/"), "none under"),
        (Txn().none_under("/moln/thing/00"), "none under"),
    ],
)
async def test_a_refused_transaction_names_the_key_and_the_condition(etcd: EtcdServer, txn: Txn, compare: str) -> None:
    async with opened(etcd.settings) as store:
        await store.commit(create(1))
        with pytest.raises(Conflict) as refused:
            await store.commit(txn.put(spec(3), named(3)))
        assert (refused.value.key, refused.value.compare) == (txn.checks[0].key, compare)
        assert value_of(store, 3) is None


async def test_conditions_that_hold_let_a_transaction_pass(etcd: EtcdServer) -> None:
    async with opened(etcd.settings) as store:
        first = await store.commit(create(1, 5))
        txn = Txn().present(spec(1)).unchanged(spec(1), first).value_is(spec(1), named(5).SerializeToString())
        txn.absent(spec(2)).unchanged(spec(2), 0).none_under(key("thing", 2) + "/").none_under("/moln/nothing/")
        await store.commit(txn.put(spec(2), named(2)).delete(spec(1)))
        assert (value_of(store, 1), value_of(store, 2)) == (None, 2)


async def test_one_bad_member_does_not_harm_its_batch(etcd: EtcdServer) -> None:
    async with opened(etcd.settings, batches_in_flight=1) as store:
        await store.commit(create(50))
        before = store.group.batches
        results = await store.commit_all([create(id) for id in range(1, 101)])
        bad = [result for result in results if not isinstance(result, int)]
        assert [str(err) for err in bad] == [str(Conflict(spec(50), "absent"))]
        assert len(store.cache.ids("thing")) == 100
        assert store.group.batches - before == 1


async def test_members_that_meet_in_one_key_are_not_both_let_through(etcd: EtcdServer) -> None:
    async with opened(etcd.settings) as store:
        results = await store.commit_all([create(1, value) for value in range(1, 11)])
        assert sum(isinstance(result, int) for result in results) == 1
        assert sum(isinstance(result, Conflict) for result in results) == 9


async def test_two_that_read_what_the_other_writes_do_not_both_pass(etcd: EtcdServer) -> None:
    async with opened(etcd.settings) as store:
        one = Txn().absent(spec(2)).put(spec(1), named(1))
        two = Txn().absent(spec(1)).put(spec(2), named(2))
        results = await store.commit_all([one, two])
        assert sorted(isinstance(result, int) for result in results) == [False, True]


async def test_a_range_that_must_be_empty_conflicts_with_a_key_put_under_it(etcd: EtcdServer) -> None:
    async with opened(etcd.settings) as store:
        notes = key("thing", 1, "note") + "/"
        results = await store.commit_all(
            [
                Txn().absent(spec(9)).put(f"{notes}a", named(1)).none_under("/moln/thing/x/"),
                Txn().none_under(notes).put(spec(9), named(9)),
            ]
        )
        assert sorted(isinstance(result, int) for result in results) == [False, True]


async def test_deleting_a_prefix_takes_all_under_it(etcd: EtcdServer) -> None:
    async with opened(etcd.settings) as store:
        await store.commit_all([Txn().put(key("thing", 1, f"note/{n}"), named(n)) for n in range(5)])
        await store.commit(create(1))
        await store.commit(Txn().delete_prefix(key("thing", 1, "note") + "/"))
        assert list(store.cache.object("thing", 1)) == ["spec"]


async def test_folds_of_transactions_that_meet_are_merged(etcd: EtcdServer) -> None:
    async with opened(etcd.settings, batches_in_flight=1) as store:
        before = store.group.batches
        results = await store.commit_all([create(id).fold(key("count", "a"), adding(2)) for id in range(1, 301)])
        assert all(isinstance(result, int) for result in results)
        assert counted(store, "a") == 600
        assert store.group.batches - before <= 3


async def test_a_fold_that_refuses_refuses_only_its_own_transaction(etcd: EtcdServer) -> None:
    async with opened(etcd.settings) as store:
        results = await store.commit_all(
            [create(id).fold(key("count", "a"), adding(1, limit=10)) for id in range(1, 31)]
        )
        assert sum(isinstance(result, int) for result in results) == 10
        assert sum(isinstance(result, Full) for result in results) == 20
        assert counted(store, "a") == 10
        assert len(store.cache.ids("thing")) == 10


async def test_a_fold_is_refused_by_the_true_value_not_by_a_stale_one(etcd: EtcdServer) -> None:
    async with opened(etcd.settings) as other, opened(etcd.settings) as store:
        await store.commit(Txn().fold(key("count", "a"), adding(10)))
        release = hold_watch(store)
        await other.commit(Txn().fold(key("count", "a"), adding(-9)))
        await store.commit(Txn().fold(key("count", "a"), adding(5, limit=10)), wait=False)
        with pytest.raises(Full, match="11 is more than 10"):
            await store.commit(Txn().fold(key("count", "a"), adding(5, limit=10)))
        assert counted(store, "a") == 10
        release()
        assert counted(store, "a") == 6


async def test_a_fold_on_a_kind_that_is_not_cached_starts_from_the_true_value(etcd: EtcdServer) -> None:
    async with opened(etcd.settings) as other, opened(etcd.settings, kinds={"thing": None}) as store:
        await other.commit(Txn().fold(key("count", "a"), adding(10)))
        for _ in range(3):
            await store.commit(Txn().fold(key("count", "a"), adding(1)))
        await other.commit(Txn().fold(key("count", "a"), adding(10)))
        revision = await store.commit(Txn().fold(key("count", "a"), adding(1)), wait=False)
        await other.cache.wait(revision, 10)
        assert counted(other, "a") == 24


async def test_two_processes_fold_one_counter_without_losing_an_update(etcd: EtcdServer) -> None:
    async with opened(etcd.settings) as one, opened(etcd.settings) as two:

        async def work(store: object, first: int) -> None:
            assert store in (one, two)
            chosen = one if store is one else two
            for at in range(first, first + 200, 10):
                batch = [create(id).fold(key("count", "a"), adding(1)) for id in range(at, at + 10)]
                assert all(isinstance(result, int) for result in await chosen.commit_all(batch))

        await asyncio.gather(work(one, 1), work(one, 1001), work(two, 2001), work(two, 3001))
        await two.cache.wait(await one.current_revision(), 10)
        assert counted(one, "a") == counted(two, "a") == 800


async def test_a_deposed_leaders_write_is_refused(etcd: EtcdServer) -> None:
    async with opened(etcd.settings) as store:
        first = await store.commit(Txn().put(key("leader", "x"), b""))
        old = Leadership("x", first)
        await store.commit(Txn(guard=old).put(spec(1), named(1)))
        await store.commit(Txn().delete(key("leader", "x")))
        await store.commit(Txn().put(key("leader", "x"), b""))
        results = await store.commit_all(
            [Txn(guard=old).put(spec(2), named(2)), create(3), Txn(guard=old).delete(spec(1))]
        )
        assert [type(result) for result in results] == [NotLeader, int, NotLeader]
        assert old.lost.is_set()
        assert [value_of(store, id) for id in (1, 2, 3)] == [1, None, 3]


async def test_a_lease_that_has_ended_refuses_only_those_that_hang_on_it(etcd: EtcdServer) -> None:
    async with opened(etcd.settings) as store:
        txns = [create(id) for id in range(1, 20)]
        txns.insert(7, Txn().put(spec(99), named(9), lease=12345))
        results = await store.commit_all(txns)
        assert [str(result) for result in results if not isinstance(result, int)] == [
            str(Conflict(spec(99), "lease lives"))
        ]
        assert len(store.cache.ids("thing")) == 19


async def test_a_value_beyond_its_bound_is_refused_before_it_is_sent(etcd: EtcdServer) -> None:
    async with opened(etcd.settings) as store:
        with pytest.raises(ValueTooLarge, match="/moln/thing/0000000001/spec: 2000 bytes are more than the 1024"):
            await store.commit(Txn().put(spec(1), b"x" * 2000))
        results = await store.commit_all([Txn().put(spec(1), b"x" * 2000), create(2)])
        assert [type(result) for result in results] == [ValueTooLarge, int]


async def test_what_etcd_itself_finds_too_large_is_refused_alone(etcd: EtcdServer) -> None:
    async with opened(etcd.settings) as store:
        large = Txn()
        for id in range(100, 110):
            large.put(key("thing", id, "big"), b"x" * 1000 * 1000)
        results = await store.commit_all([create(1), large, create(2)])
        assert [type(result) for result in results] == [int, Refused, int]


async def test_a_key_is_written_once_by_a_transaction() -> None:
    txn = Txn().put(spec(1), b"")
    with pytest.raises(ValueError, match="written twice"):
        txn.delete(spec(1))


async def test_a_lost_answer_is_found_out(etcd: EtcdServer, folder: Path) -> None:
    async with (
        proxied(server.socket_path(etcd.folder), folder) as proxy,
        opened(etcd.settings, endpoints=(proxy.endpoint,)) as store,
        opened(etcd.settings) as other,
    ):
        for id in range(1, 11):
            proxy.hold_answers()
            created = asyncio.create_task(store.commit(create(id)))
            await eventually(lambda id=id: value_of(other, id) == id)  # type: ignore[misc]
            proxy.cut()
            proxy.release_answers()
            assert await created == other.cache.object("thing", id)["spec"].create_revision


async def test_a_lost_batch_that_never_arrived_is_sent_again_once(etcd: EtcdServer, folder: Path) -> None:
    async with (
        proxied(server.socket_path(etcd.folder), folder) as proxy,
        opened(etcd.settings, endpoints=(proxy.endpoint,)) as store,
    ):
        for round in range(10):
            etcd.pause()
            sent = proxy.requested
            work = asyncio.gather(*(store.commit(Txn().fold(key("count", "a"), adding(1))) for _ in range(10)))
            await eventually(lambda sent=sent: proxy.requested > sent)  # type: ignore[misc]
            proxy.cut()
            etcd.resume()
            await work
            assert counted(store, "a") == 10 * (round + 1)


@pytest.mark.parametrize("seed", range(3))
async def test_a_killed_etcd_loses_and_repeats_nothing(etcd: EtcdServer, seed: int) -> None:
    chance = random.Random(seed)
    async with opened(etcd.settings, commit_timeout=60.0, stale_after=30.0) as store:

        async def create_many(first: int) -> None:
            for id in range(first, first + 60):
                await store.commit(create(id).fold(key("count", "a"), adding(1)))

        work = asyncio.gather(*(create_many(worker * 100) for worker in range(1, 9)))
        for _ in range(3):
            goal = store.group.commits + chance.randrange(20, 100)
            await eventually(lambda goal=goal: store.group.commits >= goal)  # type: ignore[misc]
            etcd.kill()
            etcd.start()
        await work
        assert counted(store, "a") == len(store.cache.ids("thing")) == 480
        assert all(
            entry["spec"].mod_revision == entry["spec"].create_revision for entry in store.cache.table("thing").values()
        )


async def test_while_etcd_is_away_a_commit_ends_in_time_and_says_that_nobody_knows(etcd: EtcdServer) -> None:
    async with opened(etcd.settings, commit_timeout=1.0) as store:
        etcd.kill()
        with pytest.raises(StoreUnavailable) as lost:
            await store.commit(create(1))
        assert lost.value.may_have_happened


async def test_a_commit_whose_revision_is_not_seen_says_so(etcd: EtcdServer) -> None:
    async with opened(etcd.settings, commit_timeout=1.0) as store:
        hold_watch(store)
        with pytest.raises(StoreStale, match="written at revision"):
            await store.commit(create(1))
        assert await store.commit(create(2), wait=False) > 1


async def test_an_etcd_with_small_transactions_gets_small_batches() -> None:
    small = EtcdServer(flags=["--max-txn-ops=128"])
    try:
        small.start()
        async with opened(small.settings) as store:
            results = await store.commit_all([create(id) for id in range(1, 501)])
            assert all(isinstance(result, int) for result in results)
    finally:
        small.close()


async def test_values_that_are_bytes_are_stored_as_they_are(etcd: EtcdServer) -> None:
    async with opened(etcd.settings) as store:
        await store.commit(Txn().put(spec(1), NameRecord(id=4).SerializeToString()))
        assert value_of(store, 1) == 4
