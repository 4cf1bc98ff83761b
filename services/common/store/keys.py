"""Keys and the table that declares them: `/moln/<kind>/<id>[/<part>]`. Pure; knows no kind by name but its own three.

The table itself is the caller's (services/common/domain/keys.py): message, writer, bound and lifetime of every pattern.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from google.protobuf.message import Message

ROOT = "/moln/"
ID_DIGITS = 10
PROCESS = "process"
LEADER = "leader"
COUNTER = "counter"
LANE = "lane"
"""Kind of the keys by which a process finds out what became of a batch whose answer was lost (see lanes.py)."""


def key(kind: str, id: int | str, part: str = "") -> str:
    """`/moln/<kind>/<id>[/<part>]`; an id that is a number is padded with zeros, so that keys sort as numbers do."""
    name = f"{id:0{ID_DIGITS}d}" if isinstance(id, int) else id
    return f"{ROOT}{kind}/{name}/{part}" if part else f"{ROOT}{kind}/{name}"


def prefix(kind: str, id: int | str | None = None) -> str:
    """What the keys of a kind, or those of all parts of one object, begin with."""
    return f"{ROOT}{kind}/" if id is None else f"{key(kind, id)}/"


def split_key(full: str) -> tuple[str, str, str]:
    """(kind, id, part) of a key; the part is empty where there is none. ValueError for what is no key of ours."""
    fields = full.split("/", 4)
    if len(fields) < 4 or fields[0] or fields[1] != "moln" or not fields[2] or not fields[3]:
        raise ValueError(f"{full!r} is no key of the form {ROOT}<kind>/<id>[/<part>]")
    return fields[2], fields[3], fields[4] if len(fields) == 5 else ""


def range_end(start: bytes) -> bytes:
    """The end, exclusive, of the range of all keys that begin with `start`."""
    stripped = start.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else b"\0"


@dataclass(frozen=True)
class KeyRow:
    """One pattern of keys."""

    kind: str
    part: str
    """Empty for none; `status/*` for every part that begins with `status/`; `*` for any part."""
    message: type[Message]
    writer: str
    max_bytes: int
    lifetime: str
    doc: str
    revision_only: bool = False
    """Caches keep its revision and never its value."""

    @property
    def pattern(self) -> str:
        """As shown to people: `/moln/vm/<id>/status/*`."""
        return f"{ROOT}{self.kind}/<id>" + (f"/{self.part}" if self.part else "")


class KeyTable:
    """All patterns. Iterable in the order of declaration."""

    def __init__(self, rows: Iterable[KeyRow]) -> None:
        self.rows = tuple(rows)
        self.kinds = frozenset(row.kind for row in self.rows)
        self.smallest_bound = min((row.max_bytes for row in self.rows), default=0)
        self._exact = {(row.kind, row.part): row for row in self.rows if not row.part.endswith("*")}
        self._open = [row for row in self.rows if row.part.endswith("*")]

    def __iter__(self) -> Iterator[KeyRow]:
        return iter(self.rows)

    def row(self, kind: str, part: str) -> KeyRow | None:
        """The row of a key; None where none was declared."""
        found = self._exact.get((kind, part))
        if found is not None:
            return found
        return next((row for row in self._open if row.kind == kind and part.startswith(row.part[:-1]) and part), None)

    def row_of(self, full: str) -> KeyRow | None:
        """The same by the whole key."""
        kind, _, part = split_key(full)
        return self.row(kind, part)

    def required(self, kind: str, part: str = "") -> KeyRow:
        """The row of a key that the library itself writes; ValueError where the table has none."""
        found = self.row(kind, part)
        if found is None:
            raise ValueError(f"the key table has no row for {ROOT}{kind}/<id>; the store library writes it")
        return found
