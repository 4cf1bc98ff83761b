"""Writes that all resources of the api share: causes, etags, compare-and-swap with a few tries."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.timestamp_pb2 import Timestamp

from moln.common.v1 import common_pb2
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.store import Conflict, Entry, Store, Txn

_TRIES = 8
_WAIT_S = 10.0


def cause_of(caller: Caller, verb: str) -> common_pb2.Cause:
    """Who changes something now, and with which verb."""
    now = Timestamp()
    now.GetCurrentTime()
    return common_pb2.Cause(actor=caller.name, request_id=caller.request_id, reason=verb, time=now)


def check_etag(etag: str, entry: Entry, what: str) -> None:
    """Raises ABORTED/ETAG_MISMATCH when a stated etag is not the entry's revision."""
    if etag and etag != str(entry.mod_revision):
        raise MolnError(Reason.ETAG_MISMATCH, f"update {what}: it was changed since it was read; read it again")


async def swap(store: Store, what: str, build: Callable[[], Txn | None]) -> bool:
    """Commits what `build` makes of the present state, and builds anew when others were quicker.

    `build` returns None when nothing has to change. Returns whether something was written. Raises ABORTED/CONFLICT
    after a few tries.
    """
    for _ in range(_TRIES):
        txn = build()
        if txn is None:
            return False
        try:
            await store.commit(txn)
        except Conflict:
            await catch_up(store)
        else:
            return True
    raise MolnError(Reason.CONFLICT, f"{what}: it is being changed by others; try again")


async def catch_up(store: Store) -> None:
    """Waits until the cache has everything that is in the store now."""
    await store.cache.wait(await store.current_revision(), _WAIT_S)
