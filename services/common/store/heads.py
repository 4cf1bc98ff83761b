"""The values that folds start from: what the batches on their way will have left, else what the cache has. No I/O.

A wrong guess costs a repetition and nothing else: the batch compares the value that it starts from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from services.common.store.cache import Cache
from services.common.store.keys import split_key


class Heads:
    """Newest values of folded keys that this process knows of or expects."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._values: dict[str, bytes | None] = {}

    def bases(self, keys: Iterable[str]) -> dict[str, bytes | None]:
        """The value of every key, None for one that does not exist or is not cached."""
        return {key: self._values[key] if key in self._values else self._cached(key) for key in keys}

    def expect(self, values: Mapping[str, bytes | None]) -> None:
        """A batch that leaves these values is on its way, or they were read from etcd."""
        self._values.update(values)

    def settle(self, values: Mapping[str, bytes | None], revision: int) -> None:
        """The values stood at `revision`: once the cache is there too, it is the better source."""
        if values:
            self._cache.when(revision, lambda: self._forget_same(values))

    def forget(self, keys: Iterable[str]) -> None:
        """Nothing is known of these keys any more."""
        for key in keys:
            self._values.pop(key, None)

    def _forget_same(self, values: Mapping[str, bytes | None]) -> None:
        for key, value in values.items():
            if key in self._values and self._values[key] is value and self._is_cached(key):
                del self._values[key]

    def _cached(self, key: str) -> bytes | None:
        entry = self._cache.get(*split_key(key))
        return None if entry is None else entry.raw

    def _is_cached(self, key: str) -> bool:
        kind, _, part = split_key(key)
        table = self._cache.tables.kinds.get(kind)
        row = table.row(part) if table is not None else None
        return row is not None and not row.revision_only
