"""The table that rules the life of a VM on its node: (observed, ordered) → what to do next. Every pair has an entry.

What is done changes what is observed; the table is asked again then. So a soft erase is SHUT_DOWN, then ERASE, and a
stop is SUSPEND, then UPLOAD, then SETTLE.
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
    """Claim; when that is granted, create the guest and start it, or restore it from its saved memory."""
    RETRY = "retry"
    """Report that it fell, and start it after a pause."""
    CONFIRM = "confirm"
    """Report that it runs, where that is not what was reported for this generation."""
    REST = "rest"
    """Report that it is powered off."""
    SETTLE = "settle"
    """Report that it is suspended, or in the datastore, for this generation."""
    SHUT_DOWN = "shut_down"
    PLUG = "plug"
    SUSPEND = "suspend"
    UPLOAD = "upload"
    MIGRATE = "migrate"
    HAND_OVER = "hand_over"
    """Name what the target of a move fetches; from then on it is not started here."""
    STAND = "stand"
    """Report that the move has come to nothing: the guest ended, or the move is to be given up."""
    CLAIM = "claim"
    """Claim a place as the target of a move."""
    RECEIVE = "receive"
    LOOK = "look"
    """Look whether the guest has arrived by a live move, and go on as of one that is FETCHED where it has not."""
    ARRIVE = "arrive"
    """Report that the guest has arrived and runs."""
    FETCH = "fetch"
    ERASE = "erase"
    GONE = "gone"
    """Report that nothing is here."""


_GRID = """
               absent  off       resting   suspended ready     fetched   handed    stored    ended     fell      lost      running   unknown
nothing        keep    keep      keep      keep      keep      keep      keep      keep      keep      keep      keep      keep      keep
wait           keep    keep      keep      keep      keep      keep      keep      keep      rest      retry     keep      confirm   keep
run            start   start     keep      start     look      start     start     start     rest      retry     start     confirm   keep
off            keep    rest      keep      plug      look      rest      rest      rest      rest      rest      rest      shut_down keep
off_hard       keep    rest      keep      plug      look      rest      rest      rest      rest      rest      rest      plug      keep
suspend        keep    rest      keep      settle    look      settle    settle    keep      rest      rest      rest      suspend   keep
stop           keep    upload    upload    upload    look      upload    upload    settle    upload    upload    upload    suspend   keep
undeploy       keep    upload    upload    upload    look      upload    upload    settle    upload    upload    upload    shut_down keep
undeploy_hard  keep    upload    upload    upload    look      upload    upload    settle    upload    upload    upload    plug      keep
migrate        keep    migrate   stand     stand     keep      keep      keep      stand     stand     stand     stand     migrate   keep
save_and_go    keep    hand_over hand_over hand_over keep      keep      keep      keep      hand_over hand_over hand_over suspend   keep
off_and_go     keep    hand_over hand_over hand_over keep      keep      keep      keep      hand_over hand_over hand_over shut_down keep
stay           keep    stand     stand     stand     keep      keep      keep      stand     stand     stand     stand     stand     keep
receive        claim   receive   receive   receive   keep      keep      keep      keep      receive   receive   receive   arrive    keep
fetch          claim   receive   receive   receive   fetch     keep      keep      keep      receive   receive   receive   arrive    keep
erase          gone    erase     erase     erase     erase     erase     erase     erase     erase     erase     erase     shut_down keep
erase_hard     gone    erase     erase     erase     erase     erase     erase     erase     erase     erase     erase     erase     keep
replace        keep    erase     erase     erase     erase     erase     erase     erase     erase     erase     erase     erase     keep
"""  # noqa: E501  a table is read in columns


def _read(grid: str) -> dict[tuple[Observed, Ordered], Act]:
    """The grid as a mapping: a column for each thing observed, a line for each thing ordered."""
    head, *lines = grid.strip("\n").splitlines()
    columns = [Observed(word) for word in head.split()]
    table: dict[tuple[Observed, Ordered], Act] = {}
    for line in lines:
        word, *acts = line.split()
        for observed, act in zip(columns, acts, strict=True):
            table[observed, Ordered(word)] = Act(act)
    return table


TABLE = _read(_GRID)

_ERASES = frozenset({Ordered.ERASE, Ordered.ERASE_HARD, Ordered.REPLACE})
_OFFS = frozenset({Ordered.OFF, Ordered.OFF_HARD, Ordered.UNDEPLOY, Ordered.UNDEPLOY_HARD})
_RUNS = frozenset({Ordered.RUN, Ordered.WAIT})
_HARD = frozenset({Ordered.OFF_HARD, Ordered.UNDEPLOY_HARD, Ordered.ERASE_HARD, Ordered.REPLACE})
_NONE: frozenset[Ordered] = frozenset()

INTERRUPTED_BY: dict[Doing, frozenset[Ordered]] = {
    Doing.NOTHING: _NONE,
    Doing.CLAIMING: _NONE,
    Doing.STARTING: _ERASES | _OFFS | {Ordered.SUSPEND, Ordered.STOP},
    Doing.SHUTTING_DOWN: _HARD,
    Doing.PLUGGING: _NONE,
    Doing.SUSPENDING: _ERASES | {Ordered.OFF_HARD, Ordered.UNDEPLOY_HARD},
    Doing.UPLOADING: _ERASES | _RUNS | _OFFS - {Ordered.UNDEPLOY, Ordered.UNDEPLOY_HARD},
    Doing.HANDING_OVER: _ERASES | _RUNS | _OFFS | {Ordered.STAY, Ordered.SUSPEND},
    Doing.MIGRATING: _ERASES | _RUNS | _OFFS | {Ordered.STAY, Ordered.SUSPEND, Ordered.STOP},
    Doing.RECEIVING: _ERASES,
    Doing.FETCHING: _ERASES,
    Doing.OPERATING: _HARD | {Ordered.ERASE},
    Doing.ERASING: _NONE,
    Doing.LEAVING: _NONE,
}
"""What is under way and given up when the order becomes one of these; everything else is waited for."""

PAUSED = frozenset(
    {
        Act.START, Act.SHUT_DOWN, Act.PLUG, Act.SUSPEND, Act.UPLOAD, Act.MIGRATE, Act.HAND_OVER, Act.RECEIVE, Act.FETCH,
        Act.CLAIM, Act.ERASE,
    }
)  # fmt: skip
"""What is not repeated before the pause after a failure is over."""
