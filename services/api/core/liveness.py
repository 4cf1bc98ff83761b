"""When a host is silent, and when it is proven that nothing runs there. Pure: sights and times in, changes out.

A host's VMs may start elsewhere on proof only: its fence command, a new boot id, its own watchdog, or a person's word.
Times are in seconds of one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from moln.compute.v1 import host_pb2

L = host_pb2.LivenessState
M = host_pb2.HostMode

FENCE_COMMAND = "fence_command"
NEW_BOOT_ID = "new_boot_id"
SELF_FENCE = "self_fence"
CONFIRMED = "confirmed"

FEW_HOSTS = 2
MANY_SHARE = 0.10
_UNMONITORED = frozenset({M.HOST_MODE_OFFLINE, M.HOST_MODE_DELETED})
# Looked up once: every host is judged by them at every look.
_UNSPECIFIED, _CONNECTED = L.LIVENESS_STATE_UNSPECIFIED, L.LIVENESS_STATE_CONNECTED
_SILENT, _FENCED = L.LIVENESS_STATE_SILENT, L.LIVENESS_STATE_FENCED
_MAINTENANCE = M.HOST_MODE_MAINTENANCE


@dataclass(frozen=True, slots=True)
class Times:
    """How long is waited for what."""

    grace: float = 3.0
    """A stream may be away this long before its host is silent: an agent that dials another api is no loss."""
    start_grace: float = 9.0
    """Likewise after a leader's start or an outage of the store: all agents dial anew, after pauses."""
    boot_grace: float = 15.0
    """A host that is back with a new boot id has so long to report its guests before they may start elsewhere."""
    margin: float = 5.0
    """Beyond a host's own time-out."""


@dataclass(frozen=True, slots=True)
class Sight:
    """A host as the store has it now. `connection` is the boot id that an open stream told, None without a stream."""

    host_id: int
    state: host_pb2.LivenessState = _UNSPECIFIED
    boot_id: str = ""
    connection: str | None = None
    is_synced: bool = False
    mode: host_pb2.HostMode = M.HOST_MODE_ENABLED
    vms: int = 0
    self_fence_s: int = 0
    wants_fence: bool = False
    """It has a fence command, a reason to run it unasked, and none is running or has failed just now."""


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of a host's liveness."""

    host_id: int
    state: host_pb2.LivenessState
    boot_id: str
    proof: str = ""


@dataclass(slots=True)
class Review:
    """What one look at all hosts has led to. `again_in`: seconds to the next look, None: when something changes."""

    changes: list[Change] = field(default_factory=list)
    fences: list[int] = field(default_factory=list)
    again_in: float | None = None
    is_suspended: bool = False


def is_monitored(mode: host_pb2.HostMode, vms: int) -> bool:
    """Whether the host's silence is a problem."""
    return mode not in _UNMONITORED and not (mode == _MAINTENANCE and vms == 0)


def suspends_self_fence(silent: int, monitored: int) -> bool:
    """Whether so many monitored hosts are silent at once that the fault is rather in what they share."""
    return silent > max(FEW_HOSTS, monitored * MANY_SHARE)


class Watch:
    """What one leader remembers of the hosts' silence. Nothing of it survives the leader: all times begin anew."""

    def __init__(self, times: Times, now: float) -> None:
        self._times = times
        self._began = now
        self._away: dict[int, float] = {}
        self._unheard: dict[int, float] = {}
        self._booted: dict[int, float] = {}

    def heard(self, host_id: int) -> None:
        """A stream of the host was opened, if only for a moment: heartbeats may have been acknowledged since."""
        self._unheard.pop(host_id, None)

    def interrupted(self, now: float) -> None:
        """The store was not heard for a while, so neither were streams that came and went: all times begin again."""
        self._began = now
        self._away.clear()
        self._booted.clear()
        self._unheard = dict.fromkeys(self._unheard, now)

    def review(self, sights: Iterable[Sight], now: float) -> Review:
        """Looks at all hosts."""
        present = list(sights)
        review = Review(is_suspended=_are_too_many(present))
        for sight in present:
            change, due = self._judge(sight, now, is_suspended=review.is_suspended)
            if change is not None:
                review.changes.append(change)
            elif sight.state == _SILENT and sight.wants_fence and sight.mode not in _UNMONITORED:
                review.fences.append(sight.host_id)
            if due is not None and (review.again_in is None or due - now < review.again_in):
                review.again_in = max(0.0, due - now)
        return review

    def _judge(self, sight: Sight, now: float, *, is_suspended: bool) -> tuple[Change | None, float | None]:
        """What becomes of a host, and when to look at it again."""
        if sight.connection is not None and sight.is_synced:
            return self._present(sight), None
        if sight.state in (_UNSPECIFIED, _FENCED):
            self._forget(sight.host_id)
            return None, None
        proof, due = self._proof(sight, now, is_suspended=is_suspended)
        if proof:
            return Change(sight.host_id, _FENCED, sight.connection or sight.boot_id, proof), None
        if sight.state == _CONNECTED:
            away = self._away.setdefault(sight.host_id, now)
            silent = max(away + self._times.grace, self._began + self._times.start_grace)
            if now >= silent:
                return Change(sight.host_id, _SILENT, sight.boot_id), None
            due = silent if due is None else min(due, silent)
        return None, due

    def _present(self, sight: Sight) -> Change | None:
        self._forget(sight.host_id)
        assert sight.connection is not None  # noqa: S101  for the type checker: `_judge` has looked
        if sight.state == _CONNECTED and sight.boot_id == sight.connection:
            return None
        return Change(sight.host_id, _CONNECTED, sight.connection)

    def _proof(self, sight: Sight, now: float, *, is_suspended: bool) -> tuple[str, float | None]:
        """What proves that nothing runs there, or when there may be proof."""
        if sight.connection is not None:
            self._unheard.pop(sight.host_id, None)
            if not sight.boot_id or sight.connection == sight.boot_id:
                self._booted.pop(sight.host_id, None)
                return "", None
            due = self._booted.setdefault(sight.host_id, now) + self._times.boot_grace
            return (NEW_BOOT_ID, due) if now >= due else ("", due)
        self._booted.pop(sight.host_id, None)
        unheard = self._unheard.setdefault(sight.host_id, now)
        is_silent = sight.state == _SILENT
        if not is_silent or not sight.self_fence_s or is_suspended or sight.mode in _UNMONITORED:
            return "", None
        due = unheard + sight.self_fence_s + self._times.margin
        return (SELF_FENCE, due) if now >= due else ("", due)

    def _forget(self, host_id: int) -> None:
        for remembered in (self._away, self._unheard, self._booted):
            remembered.pop(host_id, None)


def _are_too_many(sights: Iterable[Sight]) -> bool:
    monitored = [
        sight.state for sight in sights
        if is_monitored(sight.mode, sight.vms) and sight.state != _UNSPECIFIED
    ]  # fmt: skip
    return suspends_self_fence(monitored.count(_SILENT), len(monitored))
