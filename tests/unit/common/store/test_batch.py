"""Who may share a batch with whom, what folds become, and what a refusal says."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moln.etcd.v1 import etcd_pb2 as pb
from services.common.store import Conflict, Leadership, NotLeader, Txn
from services.common.store.batch import Batch, Limits
from services.common.store.diagnosis import explain, reads
from services.common.store.folds import fold_all
from services.common.store.members import Member, folders

LIMITS = Limits(members=512, size=1 << 20, ops=1000)


def member(txn: Txn) -> Member:
    """A transaction on its way; its future belongs to a loop that never runs."""
    return Member(txn, asyncio.Future(loop=_LOOP), 0.0, is_seen_wanted=False)


_LOOP = asyncio.new_event_loop()
_LOOP.close()


def get_along(*txns: Txn) -> bool:
    """Whether all travel in one batch, in either order."""
    answers = set()
    for order in (txns, txns[::-1]):
        batch = Batch(LIMITS)
        answers.add(all(batch.add(member(txn)) for txn in order))
    assert len(answers) == 1
    return answers.pop()


K = "/moln/vm/1/spec"


def keep(old: bytes | None) -> bytes:
    """A fold that changes nothing."""
    return old or b""


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (Txn().put(K, b""), Txn().put("/moln/vm/2/spec", b"")),
        (Txn().absent(K), Txn().present(K)),
        (Txn().fold(K, keep), Txn().fold(K, keep)),
        (Txn().none_under("/moln/vm/1/status/"), Txn().put(K, b"")),
        (Txn().none_under("/moln/vm/1/"), Txn().put("/moln/vm/2/status/1", b"")),
        (Txn().none_under("/moln/vm/1/"), Txn().none_under("/moln/vm/1/")),
        (Txn().delete_prefix("/moln/vm/1/"), Txn().put("/moln/vm/10/spec", b"")),
    ],
)
def test_these_travel_together(one: Txn, two: Txn) -> None:
    assert get_along(one, two)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (Txn().put(K, b""), Txn().put(K, b"")),
        (Txn().put(K, b""), Txn().delete(K)),
        (Txn().absent(K), Txn().put(K, b"")),
        (Txn().unchanged(K, 3), Txn().delete(K)),
        (Txn().fold(K, keep), Txn().put(K, b"")),
        (Txn().fold(K, keep), Txn().present(K)),
        (Txn().none_under("/moln/vm/1/"), Txn().put(K, b"")),
        (Txn().none_under("/moln/vm/1/"), Txn().put("/moln/vm/1/status/2", b"")),
        (Txn().none_under("/moln/vm/1/status/"), Txn().put("/moln/vm/1/status/2", b"")),
        (Txn().none_under("/moln/vm/1/status/"), Txn().delete_prefix("/moln/vm/1/")),
        (Txn().delete_prefix("/moln/vm/1/"), Txn().delete_prefix("/moln/vm/1/status/")),
        (Txn().delete_prefix("/moln/vm/1/"), Txn().present("/moln/vm/1/status/2")),
        (Txn().delete_prefix("/moln/vm/1/"), Txn().fold("/moln/vm/1/status/2", keep)),
        (Txn().delete_prefix("/moln/vm/"), Txn().put("/moln/host/1/spec", b"")),
        (Txn().none_under("/moln/vm/1/sta"), Txn().put("/moln/host/1/spec", b"")),
    ],
)
def test_these_travel_apart(one: Txn, two: Txn) -> None:
    assert not get_along(one, two)


def test_a_batch_keeps_its_bounds_but_one_member_always_fits() -> None:
    batch = Batch(Limits(members=2, size=100, ops=20))
    assert batch.add(member(Txn().put(K, bytes(500))))
    assert batch.is_full
    assert not batch.add(member(Txn().put("/moln/vm/2/spec", b"")))
    batch = Batch(Limits(members=100, size=10_000, ops=12))
    added = [batch.add(member(Txn().absent(f"/moln/vm/{n}/spec"))) for n in range(6)]
    assert added == [True] * 4 + [False] * 2


def test_the_folders_of_keys_are_those_from_the_objects_down() -> None:
    assert folders(["/moln/vm/1/a/b", "/moln/vm/2/a"]) == {"/moln/vm/1/", "/moln/vm/1/a/", "/moln/vm/2/"}
    assert folders(["/moln/vm/1/"]) == {"/moln/vm/1/"}
    assert folders(["/moln/counter/vm"]) == {"/moln/counter/"}


def add(n: int, limit: int) -> Txn:
    """Adds to a number, up to a limit."""

    def fn(old: bytes | None) -> bytes:
        now = int(old or b"0") + n
        if now > limit:
            raise OverflowError(now)
        return str(now).encode()

    return Txn().fold(K, fn)


@given(st.lists(st.integers(-5, 5)), st.integers(0, 10))
def test_merged_folds_do_what_folds_one_after_the_other_do(steps: list[int], limit: int) -> None:
    members = [member(add(n, limit)) for n in steps]
    done = fold_all(members, {K: b"0"})
    value, accepted = 0, []
    for one, n in zip(members, steps, strict=True):
        if value + n <= limit:
            value += n
            accepted.append(one)
    assert done.accepted == accepted
    assert len(done.refused) == len(steps) - len(accepted)
    assert done.values == ({K: str(value).encode()} if steps else {})


def test_a_member_with_several_folds_has_all_of_them_or_none() -> None:
    both = add(1, 10).fold("/moln/count/b", lambda old: bytes(1 // 0))
    done = fold_all([member(both), member(add(2, 10))], {K: b"1", "/moln/count/b": None})
    assert [type(err) for _, err in done.refused] == [ZeroDivisionError]
    assert done.values == {K: b"3", "/moln/count/b": None}


def test_folds_that_change_nothing_compare_and_write_nothing() -> None:
    done = fold_all([member(add(0, 10))], {K: b"1"})
    request = pb.TxnRequest.FromString(done.request())
    assert (len(request.compare), len(request.success)) == (1, 0)


def test_folds_that_come_back_to_where_they_began_are_written() -> None:
    done = fold_all([member(add(1, 10)), member(add(-1, 10))], {K: b"1"})
    request = pb.TxnRequest.FromString(done.request())
    assert [step.request_put.value for step in request.success] == [b"1"]


def test_a_refusal_is_explained_by_the_first_condition_that_fails_of_each_member() -> None:
    guard = Leadership("x", 5)
    members = [
        member(Txn(guard=guard)),
        member(Txn().absent("/moln/a/1/x").present("/moln/a/1/y")),
        member(Txn().value_is("/moln/a/1/z", b"1")),
        member(Txn().none_under("/moln/a/2/")),
    ]
    request = pb.TxnRequest.FromString(reads(members, [K]))
    assert [step.request_range.key for step in request.failure] == [
        b"/moln/leader/x", K.encode(), b"/moln/a/1/x", b"/moln/a/1/y", b"/moln/a/1/z", b"/moln/a/2/",
    ]  # fmt: skip
    answer = pb.TxnResponse()
    for created, value in ((6, b""), (1, b"7"), (0, b""), (0, b""), (1, b"1"), (0, b"")):
        found = answer.responses.add().response_range
        if created:
            found.kvs.add(create_revision=created, mod_revision=created, value=value)
    found_out = explain(members, [K], answer)
    assert [(members.index(one), type(err)) for one, err in found_out.refused] == [(0, NotLeader), (1, Conflict)]
    assert str(found_out.refused[1][1]) == str(Conflict("/moln/a/1/y", "present"))
    assert found_out.values == {K: b"7"}
