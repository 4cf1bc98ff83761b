"""The history on disk: events in append-only segment files, a SQLite index over them, and the durable revision.

Synchronous; callers use a thread. What is in a segment beyond the index's word is the rest of a crash and is cut off.
"""

from __future__ import annotations

import errno
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
CREATE TABLE IF NOT EXISTS beginning (only INTEGER PRIMARY KEY CHECK (only = 1), revision INTEGER NOT NULL);
"""

Event = operations_service_pb2.Event
_Row = tuple[int, str, int, int, int, int, int]


class Query(NamedTuple):
    """Which events: after a revision and before one (0: any), of an object, of an owner (0: any).

    `limit` is passed to finish a revision. Gaps are everybody's.
    """

    after: int = 0
    limit: int = 1000
    kind: str = ""
    id: int = 0
    owner: int = 0
    is_newest: bool = False
    before: int = 0

    def condition(self) -> tuple[str, list[object]]:
        """As SQL and its values."""
        where, values = ["revision > ?"], [self.after]
        tests = (
            ("revision < ?", self.before),
            ("kind = ?", self.kind),
            ("id = ?", self.id),
            ("(owner = ? OR kind = 'gap')", self.owner),
        )
        for test, value in tests:
            if value:
                where.append(test)
                values.append(value)  # type: ignore[arg-type]
        return " AND ".join(where), list(values)


class EventLog:
    """One folder of history. At most `max_bytes` of segments are kept; the oldest go first. Raises OSError only."""

    def __init__(self, folder: Path, max_bytes: int, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._segment_bytes = segment_bytes
        self._lock = threading.Lock()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._index = sqlite3.connect(folder / "index.sqlite", check_same_thread=False, isolation_level=None)
        self._index.execute("PRAGMA journal_mode=WAL")
        self._index.execute("PRAGMA synchronous=FULL")
        self._index.executescript(_SCHEMA)
        self._number, self._size = self._newest_segment()
        self._file = self._open_segment()
        self.durable_revision = self._one("SELECT revision FROM durable")
        """The newest revision whose events are all on disk; 0 for a new history."""
        self.beginning = self._one("SELECT revision FROM beginning")
        """All events after this revision are kept."""

    def close(self) -> None:
        """Closes files. What was appended is on disk already."""
        with self._lock:
            os.close(self._file)
            self._index.close()

    def append(self, events: Sequence[Event], revision: int) -> None:
        """Writes events, syncs, and only then moves the durable revision: a crash loses or doubles nothing.

        Events up to the durable revision are there already, and passed over.
        """
        with self._lock:
            rows: list[_Row] = []
            blob = bytearray()
            for event in events:
                if event.revision <= self.durable_revision:
                    continue
                raw = event.SerializeToString()
                place = (self._number, self._size + len(blob), len(raw))
                rows.append((event.revision, event.kind, event.id, event.owner_id, *place))
                blob += raw
            try:
                if blob:
                    _write(self._file, blob)
                    os.fdatasync(self._file)
                self._commit(rows, self._size + len(blob), revision)
            except OSError:
                os.ftruncate(self._file, self._size)
                raise
            if self._size >= self._segment_bytes:
                self._turn()

    def _commit(self, rows: list[_Row], size: int, revision: int) -> None:
        beginning = self.beginning if self.durable_revision else rows[0][0] - 1 if rows else revision
        statements: list[tuple[str, tuple[int, ...]]] = [
            ("INSERT OR REPLACE INTO segment VALUES (?, ?)", (self._number, size)),
            ("INSERT OR REPLACE INTO durable VALUES (1, ?)", (revision,)),
            ("INSERT OR REPLACE INTO beginning VALUES (1, ?)", (beginning,)),
        ]
        with _Transaction(self._index) as index:
            index.executemany(
                "INSERT INTO event (revision, kind, id, owner, segment, offset, length) VALUES (?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
            for statement, values in statements:
                index.execute(statement, values)
        self._size, self.durable_revision, self.beginning = size, revision, beginning

    def read(self, query: Query) -> list[Event]:
        """Events in the order of revisions."""
        with self._lock:
            return self._load(self._find(query))

    def _find(self, query: Query) -> list[tuple[int, int, int]]:
        condition, values = query.condition()
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

    def _load(self, places: list[tuple[int, int, int]]) -> list[Event]:
        files: dict[int, int] = {}
        try:
            for number in {place[0] for place in places}:
                files[number] = os.open(self._folder / _name(number), os.O_RDONLY)
            return [Event.FromString(os.pread(files[number], length, offset)) for number, offset, length in places]
        finally:
            for file in files.values():
                os.close(file)

    def _one(self, question: str, values: tuple[int, ...] = ()) -> int:
        row = self._index.execute(question, values).fetchone()
        return int(row[0] or 0) if row else 0

    def _newest_segment(self) -> tuple[int, int]:
        row = self._index.execute("SELECT number, bytes FROM segment ORDER BY number DESC LIMIT 1").fetchone()
        return (int(row[0]), int(row[1])) if row else (1, 0)

    def _open_segment(self) -> int:
        file = os.open(self._folder / _name(self._number), os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        there = os.fstat(file).st_size
        if there < self._size:
            self._size = self._forget_lost(there)
        os.ftruncate(file, self._size)
        return file

    def _forget_lost(self, there: int) -> int:
        """The segment is shorter than the index says: all from the first lost revision on is to be had again."""
        place = (self._number, there)
        lost = self._one("SELECT min(revision) FROM event WHERE segment = ? AND offset + length > ?", place)
        with _Transaction(self._index) as index:
            index.execute("DELETE FROM event WHERE revision >= ?", (lost,))
            index.execute("UPDATE durable SET revision = ?", (lost - 1,))
            end = self._one("SELECT max(offset + length) FROM event WHERE segment = ?", (self._number,))
            index.execute("UPDATE segment SET bytes = ? WHERE number = ?", (end, self._number))
        return end

    def _turn(self) -> None:
        """Begins a new segment, and lets go of the oldest beyond the bound."""
        os.close(self._file)
        self._number, self._size = self._number + 1, 0
        self._file = self._open_segment()
        total = 0
        for number, size in self._index.execute("SELECT number, bytes FROM segment ORDER BY number DESC").fetchall():
            total += size
            if total > self._max_bytes:
                self._let_go(number)

    def _let_go(self, number: int) -> None:
        last = self._one("SELECT max(revision) FROM event WHERE segment = ?", (number,))
        with _Transaction(self._index) as index:
            index.execute("DELETE FROM event WHERE segment = ?", (number,))
            index.execute("DELETE FROM segment WHERE number = ?", (number,))
            index.execute("UPDATE beginning SET revision = max(revision, ?)", (last,))
        self.beginning = max(self.beginning, last)
        (self._folder / _name(number)).unlink(missing_ok=True)


class _Transaction:
    """All or nothing, in the index; what SQLite raises becomes an OSError."""

    def __init__(self, index: sqlite3.Connection) -> None:
        self._index = index

    def __enter__(self) -> sqlite3.Connection:
        self._index.execute("BEGIN IMMEDIATE")
        return self._index

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self._index.execute("COMMIT" if error is None else "ROLLBACK")
        except sqlite3.Error as err:
            if self._index.in_transaction:
                self._index.execute("ROLLBACK")
            error = error or err
        if isinstance(error, sqlite3.Error):
            raise OSError(errno.EIO, f"the index of the history: {error}") from error


def _name(number: int) -> str:
    return f"segment-{number:08d}.events"


def _write(file: int, data: bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
