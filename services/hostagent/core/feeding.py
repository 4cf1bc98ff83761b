"""When the machine's watchdog may be fed. Pure.

The promise is `self_fence_s`: at most so many seconds after the *sending* of the last heartbeat that was acknowledged,
the machine has reset itself. A device that is fed now resets the machine `device_s` from now, if nobody feeds it again.
"""

from __future__ import annotations

from dataclasses import dataclass

HEARTBEAT_S = 2.0
SLACK_S = 3 * HEARTBEAT_S
"""An acknowledgement comes after the store's next tick, so it is seconds old: less slack resets sound machines."""


@dataclass(frozen=True, slots=True)
class Feeding:
    """The rule. All times in seconds of one monotonic clock that also counts while the machine sleeps."""

    self_fence_s: float
    device_s: float

    def fault(self) -> str:
        """What is wrong with the two times; empty where nothing is."""
        least = self.device_s + SLACK_S
        if self.self_fence_s < least:
            return f"self_fence_s must be at least {least:g} where watchdog_timeout_s is {self.device_s:g}"
        return ""

    def may_feed(self, now: float, sent: float | None) -> bool:
        """Whether the promise is kept if the device is fed now and never again."""
        return sent is not None and now + self.device_s <= sent + self.self_fence_s

    @property
    def pause_s(self) -> float:
        """Time between two feeds."""
        return min(1.0, self.device_s / 4)
