"""Columns: what is kept up to date by differences equals what is made anew."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from services.scheduler.core.amounts import Amounts
from services.scheduler.core.columns import HostColumns
from services.scheduler.core.hosts import HostFacts
from services.scheduler.core.vocabulary import MISSING

host_ids = st.integers(1, 6)
amounts = st.builds(Amounts, st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))
attributes = st.dictionaries(st.sampled_from(["A", "B"]), st.sampled_from(["x", "y", "7"]))
taints = st.frozensets(st.sampled_from(["gpu", "old"]))


class ColumnsMachine(RuleBasedStateMachine):
    """Hosts come, change and go; VMs take and give back room, also on hosts that are not there."""

    def __init__(self) -> None:
        super().__init__()
        self.columns = HostColumns()
        self.facts: dict[int, HostFacts] = {}
        self.held: list[tuple[int, Amounts]] = []
        self.versions = (0, 0, 0)

    @rule(
        changes=st.lists(
            st.tuples(host_ids, amounts, attributes, taints, st.booleans()), max_size=3, unique_by=lambda each: each[0]
        ),
        removed=st.frozensets(host_ids, max_size=2),
    )
    def apply(
        self,
        changes: list[tuple[int, Amounts, dict[str, str], frozenset[str], bool]],
        removed: frozenset[int],
    ) -> None:
        changed = [
            HostFacts(host_id, f"h{host_id}", is_enabled=flag, total=total, taints=tainted, attributes=found)
            for host_id, total, found, tainted, flag in changes
            if host_id not in removed
        ]
        before = dict(self.facts)
        self.facts.update({each.host_id: each for each in changed})
        for host_id in removed:
            self.facts.pop(host_id, None)
        assert self.columns.apply(changed, removed) is (before != self.facts)

    @rule(host_id=host_ids, taken=amounts)
    def hold(self, host_id: int, taken: Amounts) -> None:
        self.columns.hold(host_id, taken)
        self.held.append((host_id, taken))

    @rule(number=st.integers(0, 99))
    def release(self, number: int) -> None:
        if self.held:
            self.columns.release(*self.held.pop(number % len(self.held)))

    @rule(data=st.data(), taken=amounts)
    def hold_rows(self, data: st.DataObject, taken: Amounts) -> None:
        if len(self.columns):
            rows = data.draw(st.lists(st.integers(0, len(self.columns) - 1), max_size=5))
            self.columns.hold_rows(np.array(rows, np.int64), taken)
            self.held += [(int(self.columns.ids[row]), taken) for row in rows]

    @invariant()
    def rows_stand_in_the_order_of_ids(self) -> None:
        assert self.columns.ids.tolist() == sorted(self.facts)
        assert all(self.columns.row(host_id) == row for row, host_id in enumerate(sorted(self.facts)))

    @invariant()
    def everything_is_as_if_made_anew(self) -> None:
        for row, host_id in enumerate(sorted(self.facts)):
            facts, columns = self.facts[host_id], self.columns
            mine = [taken for holder, taken in self.held if holder == host_id]
            assert columns.facts(host_id) == facts
            assert bool(columns.is_enabled[row]) is facts.is_enabled
            assert [int(column[row]) for column in columns.total] == list(facts.total)
            assert [int(column[row]) for column in columns.used] == [sum(each[i] for each in mine) for i in range(3)]
            assert int(columns.vms[row]) == len(mine)
            assert bool(columns.tolerated(frozenset({"gpu"}))[row]) is (facts.taints <= {"gpu"})
            for name, codes in columns.attributes.items():
                wanted = columns.words.find(facts.attributes[name]) if name in facts.attributes else MISSING
                assert int(codes[row]) == wanted
            assert set(facts.attributes) <= set(columns.attributes)

    @invariant()
    def versions_never_fall(self) -> None:
        now = (self.columns.facts_version, self.columns.room_version, self.columns.version)
        assert all(new >= old for new, old in zip(now, self.versions, strict=True))
        self.versions = now


TestColumns = ColumnsMachine.TestCase


def test_words_of_the_past_are_forgotten() -> None:
    columns = HostColumns()
    for number in range(30_000):
        columns.apply([HostFacts(1, "h1", attributes={"UPTIME": str(number), "ARCH": "x86_64"})])
    assert len(columns.words) < 20_000
    assert columns.words.numbers()[columns.attributes["UPTIME"]].tolist() == [29_999.0]
    assert columns.attributes["ARCH"].tolist() == [columns.words.find("x86_64")]
