"""What the store library raises, as the errors that users see."""

from __future__ import annotations

from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.store.errors import (
    Conflict,
    NotLeader,
    StoreError,
    StoreFull,
    StoreStale,
    StoreUnavailable,
    ValueTooLarge,
)

_REASONS: tuple[tuple[type[StoreError], Reason], ...] = (
    (Conflict, Reason.CONFLICT),
    (NotLeader, Reason.NOT_LEADER),
    (StoreStale, Reason.STORE_STALE),
    (StoreUnavailable, Reason.STORE_UNAVAILABLE),
    (StoreFull, Reason.STORE_FULL),
    (ValueTooLarge, Reason.FIELD_INVALID),
)


def from_store_error(err: StoreError) -> MolnError:
    """The same error with a reason. What has no row is a defect and says so."""
    for kind, reason in _REASONS:
        if isinstance(err, kind):
            return MolnError(reason, str(err))
    return MolnError(Reason.INTERNAL, str(err))
