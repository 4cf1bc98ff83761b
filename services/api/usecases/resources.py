"""Writes that all resources of the api share: creation that may be repeated, compare-and-swap with a few tries."""

from __future__ import annotations

from collections.abc import Callable

from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.resources.records import Repeatable
from services.common.store import Conflict, Store, Txn

_TRIES = 8
_WAIT_S = 10.0


async def create_once(
    store: Store, kind: str, request: Repeatable, taken: MolnError, build: Callable[[int], Txn]
) -> tuple[int, bool]:
    """Commits what `build` makes of a new id. Returns (id, True), or (id, False) of what the same request made before.

    Raises `taken` when a condition of the transaction does not hold, and INVALID/REQUEST_ID_REUSED.
    """
    former = await request.first_result()
    if former is not None:
        return former, False
    object_id = (await store.ids.take(kind, 1))[0]
    txn = build(object_id)
    await request.note(txn, object_id)
    try:
        await store.commit(txn)
    except Conflict as err:
        await catch_up(store)
        former = await request.first_result()
        if former is None:
            raise taken from err
        return former, False
    return object_id, True


async def swap(
    store: Store, what: str, build: Callable[[], Txn | None], once: tuple[Repeatable, int] | None = None
) -> bool:
    """Commits what `build` makes of the present state, and builds anew when others were quicker.

    `build` returns None when nothing has to change. With `once`, a request and the id of its object, it has an effect
    the first time only. Returns whether something was written. Raises ABORTED/CONFLICT after a few tries.
    """
    for _ in range(_TRIES):
        if once is not None and await once[0].first_result() is not None:
            return False
        txn = build()
        if once is not None:
            txn = txn or Txn()
            await once[0].note(txn, once[1])
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
