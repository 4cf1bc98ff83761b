"""Long streams of this process, so that they end by themselves when it stops, and clients resume elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason

MAX_AGE_S = 3600.0
"""A stream ends after this; its client resumes."""


class Streams:
    """Knows what each stream sleeps on."""

    def __init__(self) -> None:
        self._wakes: set[asyncio.Event] = set()
        self.are_ending = False

    @contextmanager
    def wakes(self, event: asyncio.Event) -> Iterator[None]:
        """The stream that runs inside sleeps on that event, and looks at `are_ending` when it wakes."""
        self._wakes.add(event)
        try:
            if self.are_ending:
                event.set()
            yield
        finally:
            self._wakes.discard(event)

    def end(self) -> None:
        """Asks all streams to end now. Idempotent."""
        self.are_ending = True
        for event in self._wakes:
            event.set()

    def check(self) -> None:
        """Raises UNAVAILABLE/SERVICE_STOPPING once streams are to end."""
        if self.are_ending:
            raise MolnError(Reason.SERVICE_STOPPING, "this api is stopping; ask again, and another one answers")
