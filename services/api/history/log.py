"""The history on disk: events in append-only segment files, a SQLite index over them, and the durable revision.

Synchronous; callers use a thread. What is in a segment beyond the index's word is the rest of a crash and is cut off.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from moln.operations.v1 import operations_service_pb2

SEGMENT_BYTES = 16 << 20
_SCHEMA = """
CREATE TABLE IF NOT EXISTS segment (number INTEGER PRIMARY KEY, bytes INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS event (
    sequence INTEGER PRIMARY KEY, revision INTEGER NOT NULL, kind TEXT NOT NULL, id INTEGER NOT NULL,
    owner INTEGER NOT NULL, segment INTEGER NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS event_revision ON event (revision);
CREATE INDEX IF NOT EXISTS event_object ON event (kind, id, revision);
CREATE TABLE IF NOT EXISTS durable (only INTEGER PRIMARY KEY CHECK (only = 1), revision INTEGER NOT NULL);
"""

Event = operations_service_pb2.Event


class Query(NamedTuple):
    """Which events: after a revision, of an object, of an owner (0: any). `limit` is passed to finish a revision."""

    after: int = 0
    limit: int = 1000
    kind: str = ""
    id: int = 0
    owner: int = 0
    is_newest: bool = False


class EventLog:
    """One folder of history. At most `max_bytes` of segments are kept; the oldest go first."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._index = sqlite3.connect(folder / "index.sqlite", check_same_thread=False, isolation_level=None)
        self._index.execute("PRAGMA journal_mode=WAL")
        self._index.execute("PRAGMA synchronous=FULL")
        self._index.executescript(_SCHEMA)
        self._number, self._size = self._newest_segment()
        self._file = self._open_segment()

    def close(self) -> None:
        """Closes files. What was appended is on disk already."""
        with self._lock:
            os.close(self._file)
            self._index.close()

    @property
    def durable_revision(self) -> int:
        """The newest revision whose events are all on disk; 0 for a new history."""
        row = self._index.execute("SELECT revision FROM durable").fetchone()
        return int(row[0]) if row else 0

    def oldest_revision(self) -> int:
        """Revision of the oldest event that is kept; 0 when there is none."""
        row = self._index.execute("SELECT min(revision) FROM event").fetchone()
        return int(row[0] or 0)

    def append(self, events: Sequence[Event], revision: int) -> None:
        """Writes events, syncs, and only then moves the durable revision: a crash loses or doubles nothing."""
        with self._lock:
            rows, blob, offset = [], [], self._size
            for event in events:
                raw = event.SerializeToString()
                rows.append(
                    (event.revision, event.kind, event.id, event.owner_id, self._number, offset, len(raw)),
                )
                blob.append(raw)
                offset += len(raw)
            if blob:
                _write(self._file, b"".join(blob))
                os.fdatasync(self._file)
            self._commit(rows, offset, revision)
            if self._size >= SEGMENT_BYTES:
                self._turn()

    def _commit(self, rows: list[tuple[int, str, int, int, int, int, int]], size: int, revision: int) -> None:
        index = self._index
        index.execute("BEGIN IMMEDIATE")
        try:
            index.executemany(
                "INSERT INTO event (revision, kind, id, owner, segment, offset, length) VALUES (?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
            index.execute("INSERT OR REPLACE INTO segment VALUES (?, ?)", (self._number, size))
            index.execute("INSERT OR REPLACE INTO durable VALUES (1, ?)", (revision,))
            index.execute("COMMIT")
        except sqlite3.Error:
            index.execute("ROLLBACK")
            os.ftruncate(self._file, self._size)
            raise
        self._size = size

    def read(self, query: Query) -> list[Event]:
        """Events in the order of revisions."""
        with self._lock:
            places = self._find(query)
            return [self._load(*place) for place in places]

    def _find(self, query: Query) -> list[tuple[int, int, int]]:
        where = ["revision > ?"]
        values: list[object] = [query.after]
        for column, value in (("kind", query.kind), ("id", query.id), ("owner", query.owner)):
            if value:
                where.append(f"{column} = ?")
                values.append(value)
        condition = " AND ".join(where)
        order = "DESC" if query.is_newest else "ASC"
        last = self._index.execute(
            f"SELECT revision FROM event WHERE {condition} ORDER BY sequence {order} LIMIT 1 OFFSET ?",  # noqa: S608
            (*values, max(0, query.limit - 1)),
        ).fetchone()
        if last is not None:
            condition += f" AND revision {'>=' if query.is_newest else '<='} ?"
            values.append(last[0])
        cursor = self._index.execute(
            f"SELECT segment, offset, length FROM event WHERE {condition} ORDER BY sequence",  # noqa: S608  constants only
            values,
        )
        return cursor.fetchall()

    def _load(self, segment: int, offset: int, length: int) -> Event:
        with (self._folder / _name(segment)).open("rb") as file:
            file.seek(offset)
            return Event.FromString(file.read(length))

    def _newest_segment(self) -> tuple[int, int]:
        row = self._index.execute("SELECT number, bytes FROM segment ORDER BY number DESC LIMIT 1").fetchone()
        return (int(row[0]), int(row[1])) if row else (1, 0)

    def _open_segment(self) -> int:
        file = os.open(self._folder / _name(self._number), os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        os.ftruncate(file, self._size)
        return file

    def _turn(self) -> None:
        """Begins a new segment, and lets go of the oldest beyond the bound."""
        os.close(self._file)
        self._number, self._size = self._number + 1, 0
        self._file = self._open_segment()
        total = 0
        for number, size in self._index.execute("SELECT number, bytes FROM segment ORDER BY number DESC").fetchall():
            total += size
            if total > self._max_bytes and number != self._number:
                self._index.execute("DELETE FROM event WHERE segment = ?", (number,))
                self._index.execute("DELETE FROM segment WHERE number = ?", (number,))
                (self._folder / _name(number)).unlink(missing_ok=True)


def _name(number: int) -> str:
    return f"segment-{number:08d}.events"


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
