"""Typed access to what a cache holds: the key table says which message stands under a key; types cannot."""

from __future__ import annotations

from typing import TypeVar, cast

from google.protobuf.message import Message

from services.common.store import Entry

M = TypeVar("M", bound=Message)


def stored(entry: Entry | None, message: type[M]) -> M | None:
    """The value of an entry, which by the key table is such a message; None where there is no entry. Never write it."""
    return cast("M | None", entry.value) if entry is not None else None
