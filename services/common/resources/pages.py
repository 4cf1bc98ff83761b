"""Pages of lists by id: an object that lives throughout is listed exactly once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from services.common.filters import Filter
from services.common.resources import page_token
from services.common.store import Store

T = TypeVar("T")


class Page(NamedTuple):
    """Ids as in keys, the token of the next page or empty, and the revision of the answer."""

    ids: list[str]
    next_token: str
    revision: int


def page_of(store: Store, kind: str, size: int, token: str, wanted: Filter[T], read: Callable[[str], T | None]) -> Page:
    """One page of the ids of a kind whose object, read by `read` (None: not to be seen), passes the filter."""
    place = page_token.decode(token, wanted.digest)
    most = page_token.size(size)
    found: list[str] = []
    for key_id in store.cache.ids(kind, place.last):
        item = read(key_id)
        if item is None or not wanted.matches(item):
            continue
        if len(found) == most:
            return Page(found, page_token.encode(found[-1], wanted.digest, store.cache.revision), store.cache.revision)
        found.append(key_id)
    return Page(found, "", store.cache.revision)
