"""Two processes' transactions at the same time, against a serial store: whatever is committed could have been committed
one after the other, in the order of revisions, and whatever was refused would have been refused at some point of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from moln.operations.v1.records_pb2 import CounterRecord
from services.common.store import Conflict, ProcessInfo, Store, StoreSettings, Txn, key
from tests.integration.common.store.things import TABLE, Full, adding, named, spec
from tests.support.etcd import EtcdServer

IDS = st.integers(1, 4)
KEYS = st.one_of(IDS.map(spec), st.builds(lambda id, n: key("thing", id, f"note/{n}"), IDS, st.integers(1, 2)))
COUNTS = st.sampled_from([key("count", "a"), key("count", "b")])
LIMIT = 6
Contents = dict[str, tuple[bytes, int]]
"""Key → (value, revision that wrote it last)."""


@dataclass
class Plan:
    """A transaction as the model sees it."""

    compares: list[tuple[str, str]] = field(default_factory=list)
    """(kind of condition, key or prefix)."""
    puts: dict[str, int] = field(default_factory=dict)
    deletes: list[str] = field(default_factory=list)
    folder: str = ""
    """A prefix to delete."""
    adds: dict[str, int] = field(default_factory=dict)

    def build(self, known: Contents) -> Txn:
        """The transaction, with what is known now as what it expects."""
        txn = Txn()
        for kind, name in self.compares:
            value, modified = known.get(name, (b"", 0))
            if kind == "unchanged":
                txn.unchanged(name, modified)
            elif kind == "value is":
                txn.value_is(name, value)
            else:
                {"absent": txn.absent, "present": txn.present, "none under": txn.none_under}[kind](name)
        for name, id in self.puts.items():
            txn.put(name, named(id))
        for name in self.deletes:
            txn.delete(name)
        if self.folder:
            txn.delete_prefix(self.folder)
        for name, n in self.adds.items():
            txn.fold(name, adding(n, LIMIT))
        return txn


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """A transaction with few keys, so that many meet."""
    plan = Plan()
    for kind in draw(st.lists(st.sampled_from(["absent", "present", "unchanged", "value is"]), max_size=2)):
        plan.compares.append((kind, draw(KEYS)))
    if draw(st.integers(0, 4)) == 0:
        plan.compares.append(("none under", draw(IDS.map(lambda id: key("thing", id) + "/"))))
    if draw(st.integers(0, 5)) == 0:
        plan.folder = draw(IDS.map(lambda id: key("thing", id, "note") + "/"))
    chosen = draw(
        st.lists(KEYS.filter(lambda name: not plan.folder or not name.startswith(plan.folder)), max_size=3, unique=True)
    )
    for name in chosen:
        if draw(st.booleans()):
            plan.puts[name] = draw(st.integers(1, 1000))
        else:
            plan.deletes.append(name)
    for name in draw(st.lists(COUNTS, max_size=2, unique=True)):
        plan.adds[name] = draw(st.integers(-2, 3))
    return plan


class Serial:
    """The serial store: what a list of transactions, one after the other, makes of what was there."""

    def __init__(self, contents: Contents) -> None:
        self.contents = dict(contents)
        self.history = [dict(contents)]

    def holds(self, contents: Contents, check: tuple[str, str, Any]) -> bool:
        """Whether a condition holds."""
        name, kind, expected = check
        value, modified = contents.get(name, (None, 0))
        outcomes: dict[str, bool] = {
            "absent": name not in contents,
            "present": name in contents,
            "unchanged": modified == expected,
            "value is": value == expected,
            "none under": not any(other.startswith(name) for other in contents),
        }
        return outcomes[kind]

    def apply(self, txn: Txn, plan: Plan, revision: int) -> None:
        """Commits one; fails the test where it should have been refused."""
        for check in txn.checks:
            assert self.holds(self.contents, check), f"{check} let through at {revision}"
        for name in [name for name in self.contents if plan.folder and name.startswith(plan.folder)]:
            del self.contents[name]
        for name in plan.deletes:
            self.contents.pop(name, None)
        for name, id in plan.puts.items():
            self.contents[name] = (named(id).SerializeToString(), revision)
        for name, fn in txn.folds:
            old = self.contents.get(name, (None, 0))
            new = fn(old[0])
            if new != old[0]:
                self.contents[name] = (new, revision)
        self.history.append(dict(self.contents))

    def explains(self, txn: Txn, error: Exception) -> bool:
        """Whether the refusal was right at some point."""
        if isinstance(error, Conflict):
            failed = [check for check in txn.checks if (check.key, check.compare) == (error.key, error.compare)]
            return any(not self.holds(contents, check) for check in failed for contents in self.history)
        return isinstance(error, Full) and any(_is_full(txn, contents) for contents in self.history)


def _is_full(txn: Txn, contents: Contents) -> bool:
    try:
        for name, fn in txn.folds:
            fn(contents.get(name, (None, 0))[0])
    except Full:
        return True
    return False


class Stores(RuleBasedStateMachine):
    """Rounds of transactions at the same time, through two stores."""

    etcd_settings: StoreSettings

    @initialize(lanes=st.sampled_from([1, 2, 4]), members=st.sampled_from([3, 512]))
    def open(self, lanes: int, members: int) -> None:
        """Two processes on an empty part of etcd."""
        self.runner = asyncio.Runner()
        self.contents: Contents = {}
        self.stores = self.runner.run(self._open(lanes, members))

    async def _open(self, lanes: int, members: int) -> list[Store]:
        at = self.etcd_settings
        settings = StoreSettings(endpoints=at.endpoints, batches_in_flight=lanes, batch_members=members)
        stores = [await Store.open(settings, keys=TABLE, process=ProcessInfo("test")) for _ in range(2)]
        await stores[0].commit(Txn().delete_prefix("/moln/thing/").delete_prefix("/moln/count/"))
        await stores[1].cache.wait(stores[0].cache.revision, 10)
        return stores

    @rule(plans=st.lists(st.tuples(plans(), st.integers(0, 1)), min_size=1, max_size=12))
    def commit_together(self, plans: list[tuple[Plan, int]]) -> None:
        """All of them at once, each through one of the stores."""
        txns = [plan.build(self.contents) for plan, _ in plans]
        results = self.runner.run(self._commit(txns, [which for _, which in plans]))
        serial = Serial(self.contents)
        done = [(result, at) for at, result in enumerate(results) if isinstance(result, int)]
        for revision, at in sorted(done):
            serial.apply(txns[at], plans[at][0], revision)
        for txn, result in zip(txns, results, strict=True):
            assert isinstance(result, int) or serial.explains(txn, result), f"{result!r} for {txn.checks}"
        self.contents = serial.contents

    async def _commit(self, txns: list[Txn], which: list[int]) -> list[int | Exception]:
        halves = [[txn for txn, chosen in zip(txns, which, strict=True) if chosen == n] for n in range(2)]
        answers = await asyncio.gather(*(self.stores[n].commit_all(halves[n]) for n in range(2)))
        newest = await self.stores[0].current_revision()
        for store in self.stores:
            await store.cache.wait(newest, 10)
        each: list[Iterator[int | Exception]] = [iter(answer) for answer in answers]
        return [next(each[chosen]) for chosen in which]

    @invariant()
    def both_caches_hold_what_the_serial_store_holds(self) -> None:
        """Value and revision of every key."""
        for store in getattr(self, "stores", []):
            held = {
                entry.key: (entry.raw, entry.mod_revision)
                for kind in ("thing", "count")
                for parts in store.cache.table(kind).values()
                for entry in parts.values()
            }
            assert held == self.contents
            assert all(CounterRecord.FromString(held[name][0]).next <= LIMIT for name in held if "/count/" in name)

    def teardown(self) -> None:
        """Both stores end."""
        for store in getattr(self, "stores", []):
            self.runner.run(store.close())
        if hasattr(self, "runner"):
            self.runner.close()


def test_transactions_at_the_same_time_have_a_serial_order(etcd: EtcdServer) -> None:
    Stores.etcd_settings = etcd.settings
    run_state_machine_as_test(
        Stores, settings=settings(max_examples=30, stateful_step_count=8, suppress_health_check=list(HealthCheck))
    )


@pytest.mark.long
@pytest.mark.timeout(900)
def test_many_more_transactions_at_the_same_time_have_a_serial_order(etcd: EtcdServer) -> None:
    Stores.etcd_settings = etcd.settings
    run_state_machine_as_test(
        Stores, settings=settings(max_examples=400, stateful_step_count=20, suppress_health_check=list(HealthCheck))
    )
