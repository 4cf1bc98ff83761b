"""The history on disk: nothing lost or doubled by a crash, pages by whole revisions, bounded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from moln.operations.v1 import operations_service_pb2
from services.api.history.log import EventLog, Query

Event = operations_service_pb2.Event


def event(revision: int, vm_id: int = 1, owner: int = 0, kind: str = "vm") -> Event:
    """An event."""
    return Event(revision=revision, kind=kind, id=vm_id, owner_id=owner, name="x" * 50)


def revisions(log: EventLog, **query: object) -> list[int]:
    """Revisions of the events that a query finds."""
    return [each.revision for each in log.read(Query(**query))]  # type: ignore[arg-type]


@pytest.fixture
def path(folder: Path) -> Path:
    """Where the history is."""
    return folder / "history"


def test_what_was_appended_is_there_after_closing(path: Path) -> None:
    log = EventLog(path, 1 << 20)
    log.append([event(5), event(6)], 8)
    log.close()
    again = EventLog(path, 1 << 20)
    assert (again.durable_revision, revisions(again)) == (8, [5, 6])
    again.close()


def test_a_new_history_keeps_everything_from_its_first_revision_on(path: Path) -> None:
    log = EventLog(path, 1 << 20)
    assert log.durable_revision == 0
    log.append([], 100)
    log.append([event(500)], 510)
    assert log.beginning == 100
    log.close()


def test_what_a_crash_left_beyond_the_index_is_cut_off(path: Path) -> None:
    log = EventLog(path, 1 << 20)
    log.append([event(5)], 5)
    log.close()
    segment = path / "segment-00000001.events"
    whole = segment.stat().st_size
    with segment.open("ab") as file:
        file.write(b"half an eve")
    again = EventLog(path, 1 << 20)
    assert segment.stat().st_size == whole
    again.append([event(7)], 7)
    assert revisions(again) == [5, 7]
    again.close()


def test_a_segment_that_lost_its_end_is_taken_back_to_what_it_has(path: Path) -> None:
    log = EventLog(path, 1 << 20)
    log.append([event(5)], 5)
    log.append([event(6, 1), event(6, 2)], 6)
    log.append([event(9)], 12)
    log.close()
    segment = path / "segment-00000001.events"
    os.truncate(segment, segment.stat().st_size * 5 // 8)
    again = EventLog(path, 1 << 20)
    assert revisions(again) == [5]
    assert again.durable_revision == 5, "replay begins with the first revision that was lost"
    again.append([event(6, 1), event(6, 2), event(9)], 12)
    assert revisions(again) == [5, 6, 6, 9]
    again.close()


def test_events_that_are_there_already_are_not_doubled(path: Path) -> None:
    log = EventLog(path, 1 << 20)
    log.append([event(5)], 6)
    log.append([event(5), event(7)], 7)
    assert revisions(log) == [5, 7]
    log.close()


def test_a_page_ends_with_a_whole_revision(path: Path) -> None:
    log = EventLog(path, 1 << 20)
    log.append([event(5), event(6, 1), event(6, 2), event(6, 3), event(7)], 7)
    assert revisions(log, limit=2) == [5, 6, 6, 6]
    assert revisions(log, after=6, limit=2) == [7]
    assert revisions(log, limit=2, is_newest=True) == [6, 6, 6, 7]
    assert revisions(log, limit=2, is_newest=True, before=6) == [5]
    log.close()


def test_queries_narrow_by_object_and_owner_and_gaps_are_everybodys(path: Path) -> None:
    log = EventLog(path, 1 << 20)
    log.append([event(5, 1, owner=7), event(6, 2, owner=8), event(7, 0, kind="gap"), event(8, 1, owner=7)], 8)
    assert revisions(log, owner=7) == [5, 7, 8]
    assert revisions(log, kind="vm", id=2) == [6]
    log.close()


def test_the_oldest_segments_go_beyond_the_bound_and_the_beginning_moves(path: Path) -> None:
    log = EventLog(path, 2_000, segment_bytes=500)
    log.append([], 1)
    for revision in range(2, 200):
        log.append([event(revision)], revision)
    kept = revisions(log)
    assert kept == list(range(kept[0], 200))
    assert log.beginning == kept[0] - 1 > 1
    assert sum(file.stat().st_size for file in path.glob("segment-*")) <= 3_000
    log.close()
    again = EventLog(path, 2_000, segment_bytes=500)
    assert again.beginning == kept[0] - 1
    again.close()


def test_a_disk_that_refuses_leaves_the_history_as_it_was(path: Path) -> None:
    log = EventLog(path, 1 << 20)
    log.append([event(5)], 5)
    os.close(log._file)
    log._file = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OSError):
        log.append([event(6)], 6)
    assert (log.durable_revision, revisions(log)) == (5, [5])
    log.close()
