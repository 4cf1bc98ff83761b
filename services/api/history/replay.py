"""What happened while no keeper of this folder ran: views at the durable revision, then every step since, once more.

The same index and recorder as in normal running see the same changes in the same order, so events come out the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from moln.operations.v1 import records_pb2
from services.api.history.log import Event, EventLog
from services.api.history.recorder import Recorder, now
from services.api.index.cloud import KINDS, CloudIndex
from services.common.domain.keys import KEYS
from services.common.domain.reasons import Reason
from services.common.obs.logs import get_logger
from services.common.store import Change, Compacted, Entry, KeyRow, RawEvent, Refused, Store, key, split_key

_BATCH = 5000
_PROCESSES = key("process", "")
_log = get_logger("history")


def open_history(folder: Path, max_bytes: int, revision: int) -> EventLog:
    """The history in a folder. One that is ahead of the store is of a store that was lost: it is set aside."""
    log = EventLog(folder, max_bytes)
    if log.durable_revision <= revision:
        return log
    log.close()
    aside = folder.with_name(f"{folder.name}-before-{int(time.time())}")
    folder.rename(aside)
    _log.warning("history is of another store, set aside", at=log.durable_revision, store=revision, folder=str(aside))
    return EventLog(folder, max_bytes)


async def replay(store: Store, log: EventLog, until: int) -> None:
    """Brings the history up to a revision. Where revisions are forgotten, a gap is recorded instead."""
    start = log.durable_revision
    if start and start < until:
        try:
            await _replay(store, log, start, until)
        except (Compacted, Refused) as err:
            _log.warning("history has a gap", after=start, before=until, error=str(err))
            await asyncio.to_thread(log.append, [_gap(start, until)], until)
    elif not start:
        await asyncio.to_thread(log.append, [], until)


async def _replay(store: Store, log: EventLog, start: int, until: int) -> None:
    cloud = CloudIndex(store)
    known: dict[tuple[str, str, str], Entry] = {}
    present = await _present(store, start, known)
    cloud.load(present)
    clock = _Ticks()
    recorder = Recorder(cloud, clock.time)
    recorder.adopt()
    count = 0
    events: list[Event] = []
    async with aclosing(store.tail(start + 1, with_prev=False)) as steps:
        async for bunch in steps:
            for revision, raw in bunch:
                if revision > until:
                    break
                clock.hear(raw)
                cloud.load(_changes(raw, revision, known))
            events += recorder.take()
            last = min(bunch[-1][0], until) if bunch else start
            if len(events) >= _BATCH or last >= until:
                await asyncio.to_thread(log.append, events, last)
                count, events = count + len(events), []
            if last >= until:
                break
    _log.info("history caught up", after=start, until=until, events=count)


class _Ticks:
    """The time of what is replayed: processes write theirs every two seconds, so that it is right to about that."""

    def __init__(self) -> None:
        self._newest: Timestamp | None = None

    def hear(self, raw: Sequence[RawEvent]) -> None:
        """Takes the time of the ticks among these events."""
        for event in raw:
            if event.value is not None and event.key.startswith(_PROCESSES):
                with contextlib.suppress(DecodeError):
                    self._newest = records_pb2.ProcessRecord.FromString(event.value).time

    def time(self) -> Timestamp:
        """Of the newest tick; now, before there was one."""
        return self._newest or now()


async def _present(store: Store, revision: int, known: dict[tuple[str, str, str], Entry]) -> list[Change]:
    changes = []
    async for entry in store.list_at(revision, KINDS):
        known[(entry.kind, entry.id, entry.part)] = entry
        changes.append(Change(entry.kind, entry.id, entry.part, None, entry, entry.mod_revision))
    changes.sort(key=lambda change: change.revision)
    return changes


def _changes(raw: Sequence[RawEvent], revision: int, known: dict[tuple[str, str, str], Entry]) -> list[Change]:
    changes = []
    for event in raw:
        try:
            place = kind, object_id, part = split_key(event.key)
        except ValueError:
            continue
        row = KEYS.row(kind, part)
        if row is None or kind not in KINDS:
            continue
        old = known.get(place)
        new = None
        if event.value is None:
            known.pop(place, None)
        else:
            new = _entry(row, object_id, part, event.value, old, revision)
            if new is None:
                continue
            known[place] = new
        if old is not None or new is not None:
            changes.append(Change(kind, object_id, part, old, new, revision))
    return changes


def _entry(row: KeyRow, object_id: str, part: str, raw: bytes, old: Entry | None, revision: int) -> Entry | None:
    """None for a value that does not parse: as in the cache, the last good one stays."""
    try:
        value = None if row.revision_only else row.message.FromString(raw)
    except DecodeError:
        return None
    return Entry(row, object_id, part, value, raw, old.create_revision if old is not None else revision, revision)


def _gap(after: int, before: int) -> Event:
    message = f"events after revision {after} and up to {before} are missing: the history was away for too long"
    return Event(revision=before, kind="gap", reason=Reason.HISTORY_GAP, message=message, time=now())
