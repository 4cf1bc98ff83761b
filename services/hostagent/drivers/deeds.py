"""Deeds as tasks, for drivers whose work takes time: a bounded number at once, each can be interrupted.

Implements `begin` and `interrupt` of ports.PowerDriver over a coroutine function that does one deed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.obs.logs import get_logger
from services.common.runtime import Background
from services.hostagent.drivers.ports import INTERRUPTED, Deed, Outcome, Work, WorkKey

Perform = Callable[[Work], Awaitable[Outcome]]

_WAITS = frozenset({Deed.SHUT_DOWN, Deed.HALT, Deed.MIGRATE, Deed.OPERATE})
"""These wait for a guest or its hypervisor and cost little meanwhile, so that they take no place."""
_TRANSFERS = frozenset({Deed.UPLOAD, Deed.HAND_OVER, Deed.FETCH})
"""These move files about for as long as it takes: they have places of their own, so that guests start beside them."""


class Deeds:
    """The deeds under way. Their tasks are `background`'s, which must outlive this."""

    def __init__(self, perform: Perform, at_once: int, background: Background) -> None:
        self._perform, self._background = perform, background
        self._places, self._lanes = asyncio.Semaphore(at_once), asyncio.Semaphore(at_once)
        self._tasks: dict[WorkKey, asyncio.Task[None]] = {}
        self._is_closed = False
        self._log = get_logger("deeds")

    def begin(self, work: Work) -> None:
        """Starts a task for the deed."""
        task = self._background.start(self._run(work), name=f"{work.deed.value} vm {work.vm_id}")
        self._tasks[work.key] = task
        task.add_done_callback(lambda ended: self._ended(work, ended))

    def interrupt(self, host_id: int, vm_id: int, *, is_background: bool = False) -> None:
        """Cancels the deed under way, if there is one; what it has made is undone before it ends."""
        task = self._tasks.get((host_id, vm_id, is_background))
        if task is not None and not task.cancelling():  # a second one would break off the undoing
            task.cancel()

    async def close(self) -> None:
        """Interrupts all deeds and waits for their ends; nobody is told of them."""
        self._is_closed = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, work: Work) -> None:
        outcome = await self._place(work)
        self._tell(work, outcome, asyncio.current_task())

    async def _place(self, work: Work) -> Outcome:
        if work.deed in _WAITS:
            return await self._guarded(work)
        async with self._lanes if work.deed in _TRANSFERS else self._places:
            return await self._guarded(work)

    async def _guarded(self, work: Work) -> Outcome:
        """The deed; what nobody foresaw is logged and fails it, so that it is tried again and the agent goes on."""
        try:
            return await self._perform(work)
        except MolnError as err:
            return Outcome(False, err.reason, err.message, work.deed.value)
        except Exception as err:  # noqa: BLE001  the loop runner's counterpart for deeds
            self._log.error("deed failed by a defect", deed=work.deed.value, vm_id=work.vm_id, exc_info=err)
            return Outcome(False, Reason.INTERNAL, f"{work.deed.value} failed by a defect: {err!r}", work.deed.value)

    def _ended(self, work: Work, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            self._tell(work, INTERRUPTED, task)

    def _tell(self, work: Work, outcome: Outcome, task: asyncio.Task[None] | None) -> None:
        """Every deed is told of once, also one that was begun while another was under way."""
        if self._tasks.get(work.key) is task:
            del self._tasks[work.key]
        if not self._is_closed:
            work.done(work, outcome)
