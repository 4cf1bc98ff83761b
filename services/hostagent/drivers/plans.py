"""Plans: a deed as a list of steps, each of which can be asked, done, verified and undone. Runs them; knows none.

A step is repeated safely: `needed` looks at what is there, so that a plan begun by an agent that was killed is ended by
the next one. When a step fails or the plan is interrupted, what this run has done is undone, last first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.obs.logs import get_logger
from services.hostagent.drivers.ports import DONE, INTERRUPTED, Outcome

_log = get_logger("plan")


class Step(Protocol):
    """One step of a plan."""

    @property
    def name(self) -> str:
        """One word for statuses, for example `stage_disks`."""
        ...

    async def needed(self) -> bool:
        """Whether there is anything to do; reads, changes nothing."""
        ...

    async def do(self) -> None:
        """Does it. Raises MolnError, or OSError. After a half-done `do`, `undo` is called as well.

        Cancelled, it must not return before nothing of it is under way any more (calls in threads go on by themselves).
        """
        ...

    async def verify(self) -> bool:
        """Whether it is there now; False fails the step."""
        ...

    async def undo(self) -> None:
        """Takes back what `do` has made, or has begun to make; nothing there: no effect."""
        ...


Progress = Callable[[str], None]


async def run_plan(steps: Sequence[Step], progress: Progress) -> Outcome:
    """Runs the steps in their order. Never raises but for cancellation, which undoes as well and is then passed on."""
    begun: list[Step] = []
    for step in steps:
        progress(step.name)
        try:
            if not await step.needed():
                continue
            begun.append(step)
            await step.do()
            if not await step.verify():
                raise MolnError(Reason.INTERNAL, f"{step.name} was done and is not there")
        except asyncio.CancelledError:
            await _undo(begun)
            raise
        except (MolnError, OSError) as err:
            await _undo(begun)
            return failure(step.name, err)
    return DONE


def failure(step: str, err: MolnError | OSError) -> Outcome:
    """The outcome of a step that failed."""
    if isinstance(err, MolnError):
        return Outcome(False, err.reason, err.message, step)
    where = f" ({err.filename})" if err.filename else ""
    return Outcome(False, Reason.INTERNAL, f"{step}: {err.strerror or err}{where}", step)


async def _undo(begun: Sequence[Step]) -> None:
    """Last first; what cannot be undone is logged and left to the erase, which looks for everything."""
    for step in reversed(begun):
        try:
            await step.undo()
        except (MolnError, OSError) as err:
            _log.warning("step not undone", step=step.name, error=str(err))


__all__ = ["DONE", "INTERRUPTED", "Progress", "Step", "failure", "run_plan"]
