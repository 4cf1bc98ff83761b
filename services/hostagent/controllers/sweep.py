"""Compares what is known of guests with what hypervisors hold: every host once a minute, and whenever asked to.

The rarely-run way and the common one are the same: the first sweep after a start is how guests are adopted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from services.common.domain.errors import MolnError
from services.common.obs.logs import get_logger
from services.hostagent.controllers.reconciler import Reconciler
from services.hostagent.drivers.ports import RecoveryDriver

SLOTS = 60
HOSTS_IN_ONE_GO = 50
TICK_S = 1.0
FIRST_PAUSE_S = 1.0


class Sweep:
    """`step` is called by a loop about once a second and looks at one host in sixty."""

    def __init__(self, host_ids: Sequence[int], driver: RecoveryDriver, reconciler: Reconciler) -> None:
        self._host_ids, self._driver, self._reconciler = sorted(host_ids), driver, reconciler
        self._asked: set[int] = set()
        self._tick = 0
        self.wake: Callable[[], None] = lambda: None
        self._log = get_logger("sweep")

    def ask(self, host_id: int) -> None:
        """This host is looked at soon."""
        self._asked.add(host_id)
        self.wake()

    def ask_all(self) -> None:
        """All hosts are looked at soon: a stream was opened, and what is said on it should be true."""
        self._asked.update(self._host_ids)
        self.wake()

    async def first(self) -> None:
        """Looks at every host; a hypervisor that does not answer is waited for: nothing may be said before."""
        for host_id in self._host_ids:
            while not await self._look(host_id):  # noqa: ASYNC110  there is no event: a hypervisor is asked until it answers
                await asyncio.sleep(FIRST_PAUSE_S)

    async def step(self) -> None:
        """Looks at the hosts that are due, and at those that were asked for."""
        due, self._asked = self._asked, set()
        due.update(self._host_ids[self._tick % SLOTS :: SLOTS])
        self._tick += 1
        for number, host_id in enumerate(due):
            if number % HOSTS_IN_ONE_GO == 0:
                await asyncio.sleep(0)  # a driver that answers from memory never waits: others want the loop too
            await self._look(host_id)

    async def _look(self, host_id: int) -> bool:
        began_at = self._reconciler.changes
        try:
            found = await self._driver.look(host_id)
        except MolnError as err:
            self._log.warning("host not looked at", host_id=host_id, reason=err.reason, error=err.message)
            return False
        self._reconciler.compare(host_id, found, began_at)
        return True
