"""Arms and feeds the machine's watchdog, from acknowledged heartbeats alone: a host that is cut off resets itself.

It is armed with the first acknowledgement, not before: a machine that boots while the cloud is away must not reset
itself for ever. From then on only an orderly stop without running guests stops it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from services.common.obs.logs import get_logger
from services.hostagent.core.feeding import Feeding
from services.hostagent.watchdog.device import Watchdog, WatchdogError

RETRY_S = 60.0
IDLE_S = 3600.0


class SelfFence:
    """`acknowledged` comes from the link; `step` is called by a loop; `changed` is called when it has been armed."""

    def __init__(
        self, device: Watchdog, rule: Feeding, changed: Callable[[], None], now: Callable[[], float] | None = None
    ) -> None:
        self._device, self._rule, self._changed = device, rule, changed
        self._now = now or (lambda: time.clock_gettime(time.CLOCK_BOOTTIME))
        self._sent: float | None = None
        self._retry_at = 0.0
        self._is_armed = False
        self.wake: Callable[[], None] = lambda: None
        self.problem = ""
        self._log = get_logger("watchdog")

    @property
    def promise_s(self) -> int:
        """What the cloud may rely on: 0 until the watchdog is armed."""
        return int(self._rule.self_fence_s) if self._is_armed else 0

    def now(self) -> float:
        """The clock that heartbeats are timed with: it also counts while the machine sleeps."""
        return self._now()

    def acknowledged(self, sent: float) -> None:
        """A heartbeat that was sent at that time has been acknowledged."""
        self._sent = max(sent, self._sent or sent)
        if not self._is_armed:
            self.wake()

    async def step(self) -> float:
        """Feeds it, or arms it, where that is allowed now; returns the seconds to the next time."""
        now = self._now()
        if not self._rule.may_feed(now, self._sent):
            if self._is_armed:
                self._log.warning("watchdog is not fed: no heartbeat was acknowledged", promise_s=self.promise_s)
                return self._rule.pause_s
            return IDLE_S
        if self._is_armed:
            self._device.feed()
        elif now >= self._retry_at:
            self._arm(now)
        return self._rule.pause_s if self._is_armed else RETRY_S

    def _arm(self, now: float) -> None:
        try:
            self._device.arm()
        except WatchdogError as err:
            self._retry_at = now + RETRY_S
            if self.problem != str(err):
                self.problem = str(err)
                self._log.error("watchdog not armed: the host does not fence itself", error=str(err))
                self._changed()
            return
        self._is_armed, self.problem = True, ""
        self._log.info("watchdog armed", promise_s=self.promise_s)
        self._changed()

    def close(self, *, has_guests: bool) -> None:
        """The agent ends in order. With guests the watchdog goes on: another agent must feed it in time."""
        if self._is_armed:
            self._log.info("watchdog left", goes_on=has_guests)
            self._device.release(stops=not has_guests)
            self._is_armed = False
