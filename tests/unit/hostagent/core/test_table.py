"""The table of the life of a VM on its node: every pair has a row, and no row does harm."""

from __future__ import annotations

import pytest

from services.hostagent.core.guest import Doing
from services.hostagent.core.observed import Observed, Ordered
from services.hostagent.core.table import INTERRUPTED_BY, TABLE, Act

OFF = set(Observed) - {Observed.RUNNING, Observed.UNKNOWN}
MOVES = {Ordered.MIGRATE, Ordered.SAVE_AND_GO, Ordered.OFF_AND_GO, Ordered.STAY}
ERASES = {Ordered.ERASE, Ordered.ERASE_HARD, Ordered.REPLACE}


def test_every_pair_of_observed_and_ordered_has_a_row() -> None:
    assert set(TABLE) == {(observed, ordered) for observed in Observed for ordered in Ordered}


def test_without_an_order_nothing_is_done() -> None:
    assert {TABLE[observed, Ordered.NOTHING] for observed in Observed} == {Act.KEEP}


def test_nothing_is_done_to_a_guest_that_the_hypervisor_does_not_answer_for() -> None:
    assert {TABLE[Observed.UNKNOWN, ordered] for ordered in Ordered} == {Act.KEEP}


def test_only_an_order_to_erase_erases() -> None:
    assert {ordered for (_, ordered), act in TABLE.items() if act is Act.ERASE} == ERASES


def test_only_an_order_to_run_starts() -> None:
    starts = {(observed, ordered) for (observed, ordered), act in TABLE.items() if act is Act.START}
    assert {ordered for _, ordered in starts} == {Ordered.RUN}
    assert Observed.RUNNING not in {observed for observed, _ in starts}


def test_what_is_gone_is_said_only_of_what_is_absent() -> None:
    assert {observed for (observed, _), act in TABLE.items() if act is Act.GONE} == {Observed.ABSENT}


def test_a_guest_that_was_handed_over_is_started_only_when_the_move_is_off() -> None:
    acts = {TABLE[Observed.HANDED, ordered] for ordered in MOVES}
    assert acts == {Act.KEEP}


def test_the_target_of_a_move_starts_nothing_before_it_is_the_vms_host() -> None:
    acts = {TABLE[observed, ordered] for observed in Observed for ordered in (Ordered.RECEIVE, Ordered.FETCH)}
    assert acts <= {Act.KEEP, Act.CLAIM, Act.RECEIVE, Act.FETCH, Act.ARRIVE}


def test_no_guest_is_moved_away_that_runs_on_but_by_a_live_move() -> None:
    runs = {ordered: TABLE[Observed.RUNNING, ordered] for ordered in MOVES}
    assert runs[Ordered.MIGRATE] is Act.MIGRATE
    assert Act.HAND_OVER not in runs.values()


@pytest.mark.parametrize("ordered", [Ordered.OFF, Ordered.ERASE, Ordered.UNDEPLOY, Ordered.OFF_AND_GO])
def test_a_soft_order_asks_a_running_guest_first(ordered: Ordered) -> None:
    assert TABLE[Observed.RUNNING, ordered] is Act.SHUT_DOWN


@pytest.mark.parametrize("observed", sorted(OFF, key=str))
def test_a_guest_that_is_off_is_neither_shut_down_nor_suspended(observed: Observed) -> None:
    assert not {TABLE[observed, ordered] for ordered in Ordered} & {Act.SHUT_DOWN, Act.SUSPEND, Act.CONFIRM}


def test_only_saved_memory_is_dropped_of_a_guest_that_is_off() -> None:
    plugs = {observed for (observed, _), act in TABLE.items() if act is Act.PLUG}
    assert plugs == {Observed.RUNNING, Observed.SUSPENDED}


def test_what_is_in_the_datastore_is_uploaded_once() -> None:
    assert {TABLE[Observed.STORED, ordered] for ordered in (Ordered.STOP, Ordered.UNDEPLOY)} == {Act.SETTLE}


def test_a_hard_order_breaks_off_a_shutdown_and_a_soft_one_does_not() -> None:
    assert {Ordered.OFF_HARD, Ordered.ERASE_HARD} <= INTERRUPTED_BY[Doing.SHUTTING_DOWN]
    assert not {Ordered.RUN, Ordered.OFF, Ordered.ERASE} & INTERRUPTED_BY[Doing.SHUTTING_DOWN]


def test_an_erase_that_has_begun_is_never_broken_off() -> None:
    assert INTERRUPTED_BY[Doing.ERASING] == frozenset()


def test_what_can_be_under_way_says_what_breaks_it_off() -> None:
    assert set(INTERRUPTED_BY) == set(Doing)
