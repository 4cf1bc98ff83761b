"""The table that rules the life of a VM on its node: (observed, ordered) → what to do next. Every pair has a row.

What is done changes what is observed; the table is asked again then. So a soft erase is SHUT_DOWN, then ERASE.
"""

from __future__ import annotations

from enum import Enum

from services.hostagent.core.guest import Doing
from services.hostagent.core.observed import Observed, Ordered


class Act(Enum):
    """The next thing to do."""

    KEEP = "keep"
    """Nothing, until something changes."""
    START = "start"
    """Claim; when that is granted, create the guest and start it."""
    RETRY = "retry"
    """Report that it fell, and start it after a pause."""
    CONFIRM = "confirm"
    """Report that it runs, where that is not what was reported for this generation."""
    REST = "rest"
    """Report that it is powered off."""
    SHUT_DOWN = "shut_down"
    PLUG = "plug"
    ERASE = "erase"
    GONE = "gone"
    """Report that nothing is here."""


_O, _W = Observed, Ordered

TABLE: dict[tuple[Observed, Ordered], Act] = {
    (_O.ABSENT, _W.NOTHING): Act.KEEP,
    (_O.ABSENT, _W.WAIT): Act.KEEP,
    (_O.ABSENT, _W.RUN): Act.START,
    (_O.ABSENT, _W.OFF): Act.KEEP,
    (_O.ABSENT, _W.OFF_HARD): Act.KEEP,
    (_O.ABSENT, _W.ERASE): Act.GONE,
    (_O.ABSENT, _W.ERASE_HARD): Act.GONE,
    (_O.ABSENT, _W.REPLACE): Act.KEEP,
    #
    (_O.OFF, _W.NOTHING): Act.KEEP,
    (_O.OFF, _W.WAIT): Act.KEEP,
    (_O.OFF, _W.RUN): Act.START,
    (_O.OFF, _W.OFF): Act.REST,
    (_O.OFF, _W.OFF_HARD): Act.REST,
    (_O.OFF, _W.ERASE): Act.ERASE,
    (_O.OFF, _W.ERASE_HARD): Act.ERASE,
    (_O.OFF, _W.REPLACE): Act.ERASE,
    #
    (_O.RESTING, _W.NOTHING): Act.KEEP,
    (_O.RESTING, _W.WAIT): Act.KEEP,
    (_O.RESTING, _W.RUN): Act.KEEP,
    (_O.RESTING, _W.OFF): Act.KEEP,
    (_O.RESTING, _W.OFF_HARD): Act.KEEP,
    (_O.RESTING, _W.ERASE): Act.ERASE,
    (_O.RESTING, _W.ERASE_HARD): Act.ERASE,
    (_O.RESTING, _W.REPLACE): Act.ERASE,
    #
    (_O.ENDED, _W.NOTHING): Act.KEEP,
    (_O.ENDED, _W.WAIT): Act.REST,
    (_O.ENDED, _W.RUN): Act.REST,
    (_O.ENDED, _W.OFF): Act.REST,
    (_O.ENDED, _W.OFF_HARD): Act.REST,
    (_O.ENDED, _W.ERASE): Act.ERASE,
    (_O.ENDED, _W.ERASE_HARD): Act.ERASE,
    (_O.ENDED, _W.REPLACE): Act.ERASE,
    #
    (_O.FELL, _W.NOTHING): Act.KEEP,
    (_O.FELL, _W.WAIT): Act.RETRY,
    (_O.FELL, _W.RUN): Act.RETRY,
    (_O.FELL, _W.OFF): Act.REST,
    (_O.FELL, _W.OFF_HARD): Act.REST,
    (_O.FELL, _W.ERASE): Act.ERASE,
    (_O.FELL, _W.ERASE_HARD): Act.ERASE,
    (_O.FELL, _W.REPLACE): Act.ERASE,
    #
    (_O.LOST, _W.NOTHING): Act.KEEP,
    (_O.LOST, _W.WAIT): Act.KEEP,
    (_O.LOST, _W.RUN): Act.START,
    (_O.LOST, _W.OFF): Act.REST,
    (_O.LOST, _W.OFF_HARD): Act.REST,
    (_O.LOST, _W.ERASE): Act.ERASE,
    (_O.LOST, _W.ERASE_HARD): Act.ERASE,
    (_O.LOST, _W.REPLACE): Act.ERASE,
    #
    (_O.RUNNING, _W.NOTHING): Act.KEEP,
    (_O.RUNNING, _W.WAIT): Act.CONFIRM,
    (_O.RUNNING, _W.RUN): Act.CONFIRM,
    (_O.RUNNING, _W.OFF): Act.SHUT_DOWN,
    (_O.RUNNING, _W.OFF_HARD): Act.PLUG,
    (_O.RUNNING, _W.ERASE): Act.SHUT_DOWN,
    (_O.RUNNING, _W.ERASE_HARD): Act.ERASE,
    (_O.RUNNING, _W.REPLACE): Act.ERASE,
    #
    (_O.UNKNOWN, _W.NOTHING): Act.KEEP,
    (_O.UNKNOWN, _W.WAIT): Act.KEEP,
    (_O.UNKNOWN, _W.RUN): Act.KEEP,
    (_O.UNKNOWN, _W.OFF): Act.KEEP,
    (_O.UNKNOWN, _W.OFF_HARD): Act.KEEP,
    (_O.UNKNOWN, _W.ERASE): Act.KEEP,
    (_O.UNKNOWN, _W.ERASE_HARD): Act.KEEP,
    (_O.UNKNOWN, _W.REPLACE): Act.KEEP,
}

_ENDS_IT = frozenset({Ordered.OFF, Ordered.OFF_HARD, Ordered.ERASE, Ordered.ERASE_HARD, Ordered.REPLACE})

INTERRUPTED_BY: dict[Doing, frozenset[Ordered]] = {
    Doing.NOTHING: frozenset(),
    Doing.CLAIMING: frozenset(),
    Doing.STARTING: _ENDS_IT,
    Doing.SHUTTING_DOWN: frozenset({Ordered.OFF_HARD, Ordered.ERASE_HARD, Ordered.REPLACE}),
    Doing.PLUGGING: frozenset(),
    Doing.ERASING: frozenset(),
    Doing.LEAVING: frozenset(),
}
"""What is under way and given up when the order becomes one of these; everything else is waited for."""

PAUSED = frozenset({Act.START, Act.SHUT_DOWN, Act.PLUG, Act.ERASE})
"""What is not repeated before the pause after a failure is over."""
