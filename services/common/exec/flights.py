"""The requests to one script that have no answer yet: who waits, who was sent, who was lost with a process. No I/O."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from services.common.exec.protocol import Progress, Request
from services.common.exec.trouble import ScriptError

MAX_DEATHS = 2
"""A request that so many processes have died of is not sent again."""

OnProgress = Callable[[Progress], None]


class Leg(Enum):
    """Where a request is."""

    WAITING = "waiting"
    """It was never sent to the present process, nor to an earlier one that could still know of it."""
    SENT = "sent"
    LOST = "lost"
    """The process that had it has died; the next one is to be asked."""
    ASKED = "asked"
    """The present process has been asked what became of it."""


@dataclass(slots=True, eq=False)
class Flight:
    """One request. `is_abandoned`: nobody waits for its answer any more, but the script may still be at it."""

    request: Request
    answer: asyncio.Future[dict[str, Any]]
    on_progress: OnProgress | None = None
    leg: Leg = Leg.WAITING
    deaths: int = 0
    is_abandoned: bool = False

    def succeed(self, value: dict[str, Any]) -> None:
        """It is done."""
        if not self.answer.done():
            self.answer.set_result(value)

    def fail(self, error: ScriptError) -> None:
        """It came to nothing."""
        if not self.answer.done():
            self.answer.set_exception(error)


@dataclass(slots=True)
class Flights:
    """All of them, in the order in which they came."""

    by_id: dict[str, Flight] = field(default_factory=dict)

    def add(self, flight: Flight) -> None:
        """Takes one up. Raises ValueError where one with its id is in flight."""
        if flight.request.id in self.by_id:
            raise ValueError(f"a request with the id {flight.request.id} is in flight")
        self.by_id[flight.request.id] = flight

    def land(self, request_id: str) -> Flight | None:
        """It has its answer, or needs none any more: takes it out."""
        return self.by_id.pop(request_id, None)

    def on(self, leg: Leg) -> list[Flight]:
        """Those on a leg, oldest first."""
        return [flight for flight in self.by_id.values() if flight.leg is leg]

    def to_send(self, concurrency: int) -> list[Flight]:
        """Those whose turn it is; they are SENT from now on. None while it is not known what became of earlier ones."""
        if any(flight.leg in (Leg.ASKED, Leg.LOST) for flight in self.by_id.values()):
            return []
        room = concurrency - len(self.on(Leg.SENT))
        turn = self.on(Leg.WAITING)[: max(0, room)]
        for flight in turn:
            flight.leg = Leg.SENT
        return turn

    def lose(self, *, can_recover: bool) -> list[Flight]:
        """The process has died. Those that nothing can be done about are taken out and returned."""
        beyond_help = []
        for flight in list(self.by_id.values()):
            if flight.leg is Leg.WAITING:
                continue
            flight.deaths += flight.leg is Leg.SENT
            if can_recover and flight.deaths < MAX_DEATHS:
                flight.leg = Leg.LOST
            else:
                del self.by_id[flight.request.id]
                beyond_help.append(flight)
        return beyond_help

    def ask(self) -> list[Flight]:
        """Those that the new process is to be asked about; they are ASKED from now on."""
        lost = self.on(Leg.LOST)
        for flight in lost:
            flight.leg = Leg.ASKED
        return lost

    def found(self, request_id: str, *, is_running: bool) -> Flight | None:
        """The answer to such a question: it is SENT again, or WAITING, or (abandoned and unknown) taken out."""
        flight = self.by_id.get(request_id)
        if flight is None or flight.leg is not Leg.ASKED:
            return None
        if not is_running and flight.is_abandoned:
            del self.by_id[request_id]
        flight.leg = Leg.SENT if is_running else Leg.WAITING
        return flight

    def abandon(self, flight: Flight) -> bool:
        """Nobody waits for it any more. Whether the script must be told, which counts it until it answers."""
        if self.by_id.get(flight.request.id) is not flight:
            return False
        if flight.leg is Leg.WAITING:
            del self.by_id[flight.request.id]
            return False
        flight.is_abandoned = True
        return flight.leg is Leg.SENT
