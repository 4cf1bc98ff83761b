"""When a host is silent and when it is proven that nothing runs there; against a model of hosts with real watchdogs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from moln.compute.v1 import host_pb2
from services.api.core.liveness import Change, Sight, Times, Watch, is_monitored, suspends_self_fence

L, M = host_pb2.LivenessState, host_pb2.HostMode
CONNECTED, SILENT, FENCED = L.LIVENESS_STATE_CONNECTED, L.LIVENESS_STATE_SILENT, L.LIVENESS_STATE_FENCED
TIMES = Times(grace=3.0, start_grace=9.0, boot_grace=15.0, margin=5.0)
BEGAN = -1000.0


def watch() -> Watch:
    return Watch(TIMES, BEGAN)


def sight(state: host_pb2.LivenessState = CONNECTED, **fields: Any) -> Sight:
    return Sight(host_id=1, state=state, boot_id=fields.pop("boot_id", "a"), **fields)


def changes(found: Watch, seen: Sight, now: float) -> list[Change]:
    return found.review([seen], now).changes


def test_a_host_is_silent_when_its_stream_has_been_away_for_the_grace() -> None:
    found = watch()
    assert found.review([sight()], 0.0).again_in == 3.0
    assert changes(found, sight(), 2.9) == []
    assert changes(found, sight(), 3.0) == [Change(1, SILENT, "a")]


def test_a_short_absence_is_none() -> None:
    found = watch()
    changes(found, sight(), 0.0)
    assert changes(found, sight(connection="a", is_synced=True), 2.0) == []
    assert changes(found, sight(), 3.5) == []


def test_after_a_leaders_start_agents_have_longer() -> None:
    found = Watch(TIMES, 0.0)
    assert changes(found, sight(), 0.0) == []
    assert changes(found, sight(), 8.9) == []
    assert changes(found, sight(), 9.0) == [Change(1, SILENT, "a")]


def test_a_returning_host_is_connected_once_it_has_reported_its_guests() -> None:
    found = watch()
    assert changes(found, sight(SILENT, connection="a"), 0.0) == []
    assert changes(found, sight(SILENT, connection="a", is_synced=True), 1.0) == [Change(1, CONNECTED, "a")]
    assert changes(found, sight(FENCED, connection="b", is_synced=True), 1.0) == [Change(1, CONNECTED, "b")]


def test_a_host_that_was_never_heard_is_new_and_not_silent() -> None:
    assert changes(watch(), sight(L.LIVENESS_STATE_UNSPECIFIED, boot_id=""), 100.0) == []


def test_a_new_boot_id_is_proof_where_the_host_does_not_report_its_guests() -> None:
    found = watch()
    assert changes(found, sight(SILENT, connection="b"), 0.0) == []
    assert changes(found, sight(SILENT, connection="b"), 14.9) == []
    assert changes(found, sight(SILENT, connection="b"), 15.0) == [Change(1, FENCED, "b", "new_boot_id")]


def test_the_same_boot_id_is_none() -> None:
    found = watch()
    assert changes(found, sight(SILENT, connection="a"), 0.0) == []
    assert changes(found, sight(SILENT, connection="a"), 10_000.0) == []


def test_a_watchdog_is_proof_after_its_time_and_the_margin_counted_from_the_end_of_the_stream() -> None:
    found = watch()
    assert changes(found, sight(self_fence_s=30), 0.0) == []
    assert changes(found, sight(SILENT, self_fence_s=30), 34.9) == []
    assert changes(found, sight(SILENT, self_fence_s=30), 35.0) == [Change(1, FENCED, "a", "self_fence")]


def test_without_a_watchdog_time_proves_nothing() -> None:
    found = watch()
    changes(found, sight(), 0.0)
    assert changes(found, sight(SILENT), 1_000_000.0) == []


def test_any_stream_however_short_starts_a_watchdogs_time_again() -> None:
    found = watch()
    changes(found, sight(SILENT, self_fence_s=30), 0.0)
    changes(found, sight(SILENT, self_fence_s=30, connection="a"), 20.0)
    changes(found, sight(SILENT, self_fence_s=30), 30.0)
    assert changes(found, sight(SILENT, self_fence_s=30), 64.9) == []
    found.heard(1)
    assert changes(found, sight(SILENT, self_fence_s=30), 65.0) == []
    assert changes(found, sight(SILENT, self_fence_s=30), 100.0) != []


def test_a_new_leader_and_an_outage_of_the_store_start_it_again() -> None:
    found = Watch(TIMES, 50.0)
    changes(found, sight(SILENT, self_fence_s=30), 50.0)
    found.interrupted(70.0)
    assert changes(found, sight(SILENT, self_fence_s=30), 104.9) == []
    assert changes(found, sight(SILENT, self_fence_s=30), 105.0) != []


def many(silent: int, others: int, **fields: Any) -> list[Sight]:
    states = [SILENT] * silent + [CONNECTED] * others
    return [
        Sight(number, state, "a", "a" if state == CONNECTED else None, state == CONNECTED, **fields)
        for number, state in enumerate(states, 1)
    ]


@pytest.mark.parametrize(
    ("silent", "others", "is_suspended"), [(1, 0, False), (2, 0, False), (3, 0, True), (3, 27, False), (4, 26, True)]
)
def test_too_many_at_once_suspend_the_watchdogs_proof_and_no_other(
    silent: int, others: int, is_suspended: bool
) -> None:
    found = watch()
    found.review(many(silent, others, self_fence_s=30), 0.0)
    review = found.review(many(silent, others, self_fence_s=30, wants_fence=True), 100.0)
    assert review.is_suspended is is_suspended
    proven = [change.host_id for change in review.changes]
    assert proven == ([] if is_suspended else list(range(1, silent + 1)))
    assert review.fences == (list(range(1, silent + 1)) if is_suspended else [])
    assert suspends_self_fence(silent, silent + others) is is_suspended


def test_a_fence_is_asked_for_only_where_the_host_is_silent_and_monitored() -> None:
    found = watch()
    assert found.review([sight(SILENT, wants_fence=True)], 0.0).fences == [1]
    assert found.review([sight(CONNECTED, wants_fence=True)], 0.0).fences == []
    assert found.review([sight(FENCED, wants_fence=True)], 0.0).fences == []
    offline = sight(SILENT, wants_fence=True, self_fence_s=1, mode=M.HOST_MODE_OFFLINE)
    assert found.review([offline], 1000.0).fences == []
    assert found.review([offline], 2000.0).changes == []


def test_a_host_under_work_is_monitored_while_it_has_vms() -> None:
    assert is_monitored(M.HOST_MODE_MAINTENANCE, 1)
    assert not is_monitored(M.HOST_MODE_MAINTENANCE, 0)
    assert not is_monitored(M.HOST_MODE_OFFLINE, 1)
    assert is_monitored(M.HOST_MODE_DRAINING, 0)


@dataclass
class Machine:
    """A machine with an armed watchdog: it is dead `FENCE_S` after the sending of its last acknowledged heartbeat."""

    acknowledged: float = 0.0
    is_dead: bool = False
    boots: int = 0


FENCE_S, STEP_S = 10.0, 0.5


class SelfFencing(RuleBasedStateMachine):
    """The leader sees the records of streams, late or in bunches; machines see acknowledgements. Never is a host
    taken for fenced by its watchdog while the machine could still be alive."""

    @initialize()
    def begin(self) -> None:
        self.now = 0.0
        self.machine = Machine()
        self.recorded: str | None = "0"
        self.state, self.boot_id = CONNECTED, "0"
        self.watch = Watch(TIMES, 0.0)
        self.is_store_up = True
        self.ticked = 0.0

    @rule(steps=st.integers(1, 30))
    def time_passes(self, steps: int) -> None:
        for _ in range(steps):
            self.now += STEP_S
            if self.now >= self.machine.acknowledged + FENCE_S:
                self.machine.is_dead = True
            if self.is_store_up:
                if self.now - self.ticked > 6.0:
                    self.watch.interrupted(self.now)
                self.ticked = self.now

    @rule(delay=st.floats(0.0, 5.0))
    def a_heartbeat_is_acknowledged(self, delay: float) -> None:
        """Only while a record says that the host is here and the store is up; it was sent some time before."""
        if self.recorded is not None and self.is_store_up and not self.machine.is_dead:
            self.machine.acknowledged = max(self.machine.acknowledged, self.now - delay)

    @rule()
    def the_stream_ends(self) -> None:
        if self.is_store_up:
            self.recorded = None

    @rule()
    def a_stream_comes(self) -> None:
        """Of the same boot, or, of a machine that was dead, of the next."""
        if not self.is_store_up:
            return
        if self.machine.is_dead:
            self.machine = Machine(acknowledged=self.now, boots=self.machine.boots + 1)
        self.recorded = str(self.machine.boots)
        self.watch.heard(1)

    @rule()
    def the_leader_looks(self) -> None:
        if not self.is_store_up or self.now - self.ticked > 6.0:
            return
        is_synced = self.recorded is not None
        seen = Sight(1, self.state, self.boot_id, self.recorded, is_synced, self_fence_s=int(FENCE_S))
        for change in self.watch.review([seen], self.now).changes:
            self.state, self.boot_id = change.state, change.boot_id
            if change.proof == "self_fence":
                assert self.machine.is_dead, "a live machine was taken for dead"

    @rule()
    def another_leads(self) -> None:
        self.watch = Watch(TIMES, self.now)

    @precondition(lambda self: self.is_store_up)
    @rule()
    def the_store_goes(self) -> None:
        self.is_store_up = False

    @precondition(lambda self: not self.is_store_up)
    @rule()
    def the_store_returns(self) -> None:
        self.is_store_up = True
        if self.now - self.ticked > 6.0:
            self.watch.interrupted(self.now)
        self.ticked = self.now


SelfFencing.TestCase.settings = settings(max_examples=150, stateful_step_count=60)
TestSelfFencing = SelfFencing.TestCase
