"""A key table of its own for the tests of the store: the store knows no domain, so its tests need none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from moln.operations.v1.records_pb2 import (
    CounterRecord,
    LeaderRecord,
    NameRecord,
    ProcessRecord,
    RequestRecord,
)
from services.common.store import KeyRow, KeyTable, ProcessInfo, Store, StoreSettings, Txn, key

MIB = 1024 * 1024
TABLE = KeyTable(
    (
        KeyRow("thing", "spec", NameRecord, "test", 1024, "test", "A small value."),
        KeyRow("thing", "big", RequestRecord, "test", MIB, "test", "A large value."),
        KeyRow("thing", "note/*", NameRecord, "test", 1024, "test", "One of several."),
        KeyRow("thing", "secret", NameRecord, "test", 1024, "test", "Not cached.", revision_only=True),
        KeyRow("count", "", CounterRecord, "test", 1024, "test", "Something that is folded."),
        KeyRow("process", "", ProcessRecord, "store", 4096, "process", "A process."),
        KeyRow("leader", "", LeaderRecord, "store", 1024, "process", "A leader."),
        KeyRow("counter", "", CounterRecord, "store", 1024, "for ever", "Next id."),
    )
)


@asynccontextmanager
async def opened(settings: StoreSettings, *, kinds: Any = None, **changes: Any) -> AsyncIterator[Store]:
    """An open store with the table of the tests; `changes` of the settings."""
    store = await Store.open(
        replace(settings, **changes), keys=TABLE, kinds=kinds, process=ProcessInfo("test", "nowhere")
    )
    async with store:
        yield store


def spec(id: int | str) -> str:
    """Key of a thing's spec."""
    return key("thing", id, "spec")


def named(id: int) -> NameRecord:
    """A small value."""
    return NameRecord(id=id)


def create(id: int, value: int = 0) -> Txn:
    """A transaction that creates a thing."""
    return Txn().absent(spec(id)).put(spec(id), named(value or id))


def value_of(store: Store, id: int | str, part: str = "spec") -> int | None:
    """What the store's cache holds of a thing."""
    entry = store.cache.get("thing", id, part)
    return None if entry is None else int(getattr(entry.value, "id", -1))


def adding(n: int, limit: int = 1 << 30) -> Any:
    """A fold that adds; raises Full beyond the limit and below 0."""

    def add(old: bytes | None) -> bytes:
        now = CounterRecord.FromString(old or b"").next + n
        if not 0 <= now <= limit:
            raise Full(f"{now} is more than {limit}, or less than nothing")
        return CounterRecord(next=now).SerializeToString()

    return add


def counted(store: Store, id: str) -> int:
    """What the store's cache holds of a count."""
    entry = store.cache.get("count", id)
    return 0 if entry is None else int(getattr(entry.value, "next", -1))


def hold_watch(store: Store) -> Callable[[], None]:
    """From now on what the watch brings is kept back; what is returned lets it into the cache, once and for ever."""
    held: list[Any] = []
    apply = store.cache.apply
    setattr(store.cache, "apply", held.append)  # noqa: B010  a method is replaced on purpose

    def release() -> None:
        setattr(store.cache, "apply", apply)  # noqa: B010  as above
        for events in held:
            apply(events)

    return release


class Full(Exception):
    """A fold's refusal."""
