"""Pauses between attempts to reach etcd: short at first, doubled up to a bound, each shortened a little at random."""

from __future__ import annotations

import random
from collections.abc import Iterator

FIRST_SECONDS = 0.02
MOST_SECONDS = 0.5


def pauses(first: float = FIRST_SECONDS, most: float = MOST_SECONDS) -> Iterator[float]:
    """Seconds to wait before each next attempt, without end."""
    pause = first
    while True:
        yield pause * random.uniform(0.75, 1.0)
        pause = min(most, pause * 2)
