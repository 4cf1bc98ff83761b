"""Pauses after failures. Pure: jitter is the caller's."""

from __future__ import annotations

FIRST_S = 1.0
MOST_S = 60.0


def pause_s(failures: int) -> float:
    """Seconds to wait after that many failures in a row (at least one): 1, 2, 4 … 60."""
    return min(MOST_S, FIRST_S * 2.0 ** min(max(failures, 1) - 1, 10))
