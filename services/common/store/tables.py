"""The tables of a cache: entries by kind, id and part, and the ids of a kind in order. Pure data; knows no etcd.

What is handed out is live: it changes when the cache does, which is only while the event loop runs something else.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from services.common.store.entries import Entry
from services.common.store.keys import KeyRow, KeyTable

NO_PARTS: Mapping[str, Entry] = MappingProxyType({})
NO_OBJECTS: Mapping[str, Mapping[str, Entry]] = MappingProxyType({})


class KindTable:
    """The objects of one kind, as far as their parts are wanted."""

    __slots__ = ("_prefixes", "objects", "order", "rows")

    def __init__(self, rows: Sequence[KeyRow]) -> None:
        self.objects: dict[str, dict[str, Entry]] = {}
        self.order: list[str] = []
        self.rows = {row.part: row for row in rows if not row.part.endswith("*")}
        self._prefixes = [(row.part[:-1], row) for row in rows if row.part.endswith("*")]

    def row(self, part: str) -> KeyRow | None:
        """The row of a part; None where it is not wanted or was never declared."""
        found = self.rows.get(part)
        if found is None and part:
            for start, row in self._prefixes:
                if part.startswith(start):
                    return row
        return found

    def put(self, entry: Entry) -> Entry | None:
        """Stores an entry; returns the one before."""
        parts = self.objects.get(entry.id)
        if parts is None:
            parts = self.objects[entry.id] = {}
            self._add_id(entry.id)
        else:
            old = parts.get(entry.part)
            if old is not None:
                parts[entry.part] = entry
                return old
        parts[entry.part] = entry
        return None

    def remove(self, id: str, part: str) -> Entry | None:
        """Removes an entry; returns it."""
        parts = self.objects.get(id)
        old = parts.pop(part, None) if parts is not None else None
        if old is not None and not parts:
            del self.objects[id]
            self.order.pop(bisect_left(self.order, id))
        return old

    def ids(self, after: str, limit: int | None) -> Sequence[str]:
        """Ids greater than `after`, in order; at most `limit` of them."""
        start = bisect_right(self.order, after) if after else 0
        return self.order[start : None if limit is None else start + limit]

    def _add_id(self, id: str) -> None:
        if not self.order or id > self.order[-1]:
            self.order.append(id)
        else:
            insort(self.order, id)


class Tables:
    """All wanted kinds. `kinds`: kind → wanted parts (None for all); None for every kind."""

    def __init__(self, keys: KeyTable, kinds: Mapping[str, frozenset[str] | None] | None) -> None:
        wanted = dict.fromkeys(keys.kinds) if kinds is None else kinds
        unknown = sorted(set(wanted) - keys.kinds)
        if unknown:
            raise ValueError(f"the key table has no kind {', '.join(unknown)}")
        self.kinds = {kind: KindTable(_rows(keys, kind, parts)) for kind, parts in wanted.items()}

    def entries(self) -> Iterator[Entry]:
        """Every entry there is."""
        for table in self.kinds.values():
            for parts in table.objects.values():
                yield from parts.values()


def _rows(keys: KeyTable, kind: str, parts: frozenset[str] | None) -> list[KeyRow]:
    rows = [row for row in keys if row.kind == kind]
    if parts is None:
        return rows
    chosen = [row for row in rows if row.part in parts or row.part.removesuffix("/*") in parts]
    if len(chosen) < len(parts):
        raise ValueError(f"the key table has not all of the parts {sorted(parts)} of {kind}")
    return chosen
