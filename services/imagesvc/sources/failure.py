"""Why bytes could not be had."""

from __future__ import annotations

from services.common.domain.reasons import Reason


class SourceFailed(Exception):
    """The source did not give the bytes. `is_final`: trying again soon would not help."""

    def __init__(self, reason: Reason, message: str, *, is_final: bool) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.is_final = is_final
