"""When a scheduled verb is due, and when it comes next."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from moln.compute.v1 import vm_pb2
from services.api.core.timetable import after, due

DAY = 86_400


def an_intent(*times: int, every: int = 0) -> vm_pb2.VmIntent:
    intent = vm_pb2.VmIntent()
    for row_id, at in enumerate(times, start=1):
        row = intent.scheduled.add(id=row_id, time=Timestamp(seconds=at))
        if every:
            row.interval.CopyFrom(Duration(seconds=every))
    return intent


def test_nothing_is_due_before_its_time_and_the_first_is_due_first() -> None:
    intent = an_intent(100, 200)
    assert due(vm_pb2.VmIntent(), 1000) is None
    assert due(intent, 99.9) is None
    found = due(intent, 500)
    assert found is not None and found.id == 1


def test_what_is_done_once_goes() -> None:
    assert [row.id for row in after(an_intent(100, 200), 1, 150, "", "").scheduled] == [2]


def test_what_repeats_comes_again_with_what_was_said_of_the_last_time() -> None:
    (row,) = after(an_intent(100, every=DAY), 1, 101, "STATE_FORBIDS", "it is off").scheduled
    assert row.time.seconds == 100 + DAY
    assert (row.last_reason, row.last_message) == ("STATE_FORBIDS", "it is off")


@pytest.mark.parametrize("late", [0, 1, DAY - 1, DAY, 10 * DAY + 5])
def test_times_that_were_missed_are_not_made_up_for(late: int) -> None:
    (row,) = after(an_intent(100, every=DAY), 1, 100 + late, "", "").scheduled
    assert row.time.seconds > 100 + late
    assert row.time.seconds - (100 + late) <= DAY
    assert (row.time.seconds - 100) % DAY == 0


def test_rows_stay_in_the_order_of_their_times() -> None:
    intent = an_intent(100, 200, every=DAY)
    assert [row.id for row in after(intent, 1, 150, "", "").scheduled] == [2, 1]
