"""Leads one guest from what is observed to what is ordered: asks the table, claims, has the driver do it, reports.

It is called whenever something has changed, carries no event's content, and does one thing at a time for a guest. What
a look at the hypervisor finds goes the same way as what an order says.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from moln.compute.v1 import vm_pb2
from moln.compute.v1.vm_pb2 import VmStatus
from moln.node.v1.node_service_pb2 import VmOrder
from services.common.domain.reasons import Reason
from services.common.obs.logs import get_logger
from services.hostagent.controllers.outbox import Outbox
from services.hostagent.core import status as statuses
from services.hostagent.core.guest import DOING_OF_DEED, Doing, Guest
from services.hostagent.core.observed import Observed, Ordered, observe, ordered
from services.hostagent.core.table import INTERRUPTED_BY, PAUSED, TABLE, Act
from services.hostagent.drivers.ports import Deed, End, Outcome, Power, PowerDriver, Timing, Work

RETRY_S = 1.0
"""Pause before a report or claim is repeated that the gateway could not store."""
DEFAULT_GRACE_S = 60
FINAL_REFUSALS = frozenset({Reason.EPOCH_PAST, Reason.HOST_FENCED, Reason.VM_NOT_FOUND, Reason.STATE_FORBIDS})
"""Answers after which a claim is not repeated before another order comes."""

DEEDS_UNDER_WAY = frozenset({Doing.STARTING, Doing.SHUTTING_DOWN, Doing.PLUGGING, Doing.ERASING})

_ENDS = {
    End.SHUT_DOWN: (Reason.GUEST_SHUT_DOWN, "the guest shut down from within"),
    End.CRASHED: (Reason.GUEST_CRASHED, "the guest crashed"),
    End.VANISHED: (Reason.GUEST_VANISHED, "the guest is gone without moln's doing"),
    End.NONE: (Reason.GUEST_VANISHED, "the guest is gone without moln's doing"),
    End.BY_AGENT: (Reason.GUEST_VANISHED, "the guest was stopped when the agent ended"),
}


class LifeMetrics(Protocol):
    """What is counted of guests' lives."""

    def did(self, deed: Deed, outcome: Outcome) -> None:
        """A deed has ended."""
        ...

    def started_after(self, seconds: float) -> None:
        """A guest runs, that long after the order for it came."""
        ...

    def refused(self) -> None:
        """A claim was refused."""
        ...


class Life:
    """Decides and does, for any guest. `bases` holds by host what all its statuses have in common."""

    def __init__(
        self,
        driver: PowerDriver,
        outbox: Outbox,
        timers: Timing,
        bases: dict[int, VmStatus],
        metrics: LifeMetrics,
        *,
        now: Callable[[], float],
        monotonic: Callable[[], float],
        forget: Callable[[Guest], None],
        look: Callable[[int], None],
        guest_name: Callable[[int, str], str] = lambda vm_id, _uid: f"vm-{vm_id}",
        is_verbose: bool = True,
        longest_halt_s: float = DEFAULT_GRACE_S,
    ) -> None:
        self._driver, self._outbox, self._timers = driver, outbox, timers
        self._bases, self._metrics = bases, metrics
        self._now, self._monotonic = now, monotonic
        self._forget, self._look = forget, look
        self._log = get_logger("life")
        self._guest_name = guest_name
        self._is_verbose, self._longest_halt_s = is_verbose, longest_halt_s
        self._changes = 0
        self._halting: dict[Guest, Callable[[], None]] = {}
        self.is_halting = False
        """The agent ends: nothing new is begun."""
        self._acts: dict[Act, Callable[[Guest, Observed], None]] = {
            Act.KEEP: self._keep,
            Act.START: self._claim,
            Act.RETRY: self._fell,
            Act.CONFIRM: self._confirm,
            Act.REST: self._rest,
            Act.SHUT_DOWN: self._shut_down,
            Act.PLUG: self._plug,
            Act.ERASE: self._erase,
            Act.GONE: self._gone,
        }

    @property
    def changes(self) -> int:
        """Number of the last change of any guest's power."""
        return self._changes

    def base(self, host_id: int) -> VmStatus:
        """What all statuses of the host have in common."""
        return self._bases[host_id]

    def decide(self, guest: Guest) -> None:
        """Looks at the guest and does the next thing, if there is one. Idempotent."""
        if self.is_halting:
            return
        wanted = ordered(guest.order, guest.status)
        if guest.doing is not Doing.NOTHING:
            if wanted in INTERRUPTED_BY[guest.doing]:
                self._driver.interrupt(guest.host_id, guest.vm_id)
            return
        observed = observe(guest)
        act = TABLE[observed, wanted]
        if act in PAUSED and self._must_wait(guest):
            return
        self._acts[act](guest, observed)

    def power(self, guest: Guest, power: Power, end: End) -> None:
        """Takes in what the hypervisor has of the guest now, and decides."""
        if guest.doing is Doing.STARTING and power is not Power.RUNNING:
            self._changes += 1
            guest.changed = self._changes
            guest.end = end  # looked at when the start has ended
            return
        if guest.doing is not Doing.NOTHING or (power is guest.power and end is guest.end):
            return
        self._set_power(guest, power, end)
        self.decide(guest)

    def report(self, guest: Guest, status: VmStatus) -> None:
        """Makes `status` the guest's and reports it."""
        if self._is_verbose:
            self._tell(guest, status)
        guest.status = status
        self._driver.remember(status, guest.vm_id)
        self._outbox.put(guest, status)

    # Claims

    def granted(self, guest: Guest) -> None:
        """The claim is stored: the guest may be created, if that is still what is ordered."""
        guest.doing, guest.before_claim = Doing.NOTHING, None
        status = guest.status
        is_wanted = ordered(guest.order, status) is Ordered.RUN and not self.is_halting
        if not is_wanted or status is None:
            self.decide(guest)
            return
        self._set_power(guest, Power.OFF, End.NONE)
        self._driver.remember(status, guest.vm_id)
        self._begin(guest, Deed.START)

    def refused(self, guest: Guest, reason: str) -> None:
        """The claim is not stored: nothing has been touched, and what was reported before stands."""
        self._metrics.refused()
        guest.doing = Doing.NOTHING
        guest.status, guest.before_claim = guest.before_claim, None
        if guest.order is None and not guest.is_here:
            self._forget(guest)
            return
        if reason in FINAL_REFUSALS:
            guest.refused = guest.claimed
            self._log.info("claim refused", vm_id=guest.vm_id, host_id=guest.host_id, reason=reason)
        else:
            guest.not_before = self._now() + RETRY_S
        self.decide(guest)

    def left(self, guest: Guest) -> None:
        """The report that nothing is here is stored."""
        guest.doing = Doing.NOTHING
        if ordered(guest.order, None) in (Ordered.ERASE, Ordered.ERASE_HARD, Ordered.NOTHING):
            self._forget(guest)
            return
        self.decide(guest)

    # What the table asks for

    def _keep(self, guest: Guest, _observed: Observed) -> None:
        return

    def _claim(self, guest: Guest, _observed: Observed) -> None:
        order = guest.order
        if order is None or order is guest.refused:
            return
        before = guest.status
        guest.before_claim, guest.claimed = before, order
        guest.status = statuses.claimed(self._bases[guest.host_id], before, order, statuses.stamp(self._now()))
        guest.status.hypervisor_name = self._guest_name(guest.vm_id, order.uid)
        guest.doing = Doing.CLAIMING
        self._outbox.put(guest, guest.status, is_claim=True)

    def _fell(self, guest: Guest, _observed: Observed) -> None:
        reason, message = _ENDS[guest.end]
        status = statuses.fell(self._known(guest), reason, message, self._now())
        guest.not_before = _unix(status)
        self.report(guest, status)
        self.decide(guest)

    def _confirm(self, guest: Guest, _observed: Observed) -> None:
        status = self._known(guest)
        generation = _generation(guest.order)
        is_said = status.phase == vm_pb2.VM_PHASE_RUNNING and status.observed_generation == generation
        if is_said:
            return
        now = statuses.stamp(self._now())
        fresh = statuses.entered(status, vm_pb2.VM_PHASE_RUNNING, now, generation=generation)
        if not fresh.HasField("start_time"):
            fresh.start_time.CopyFrom(now)
        self.report(guest, fresh)

    def _rest(self, guest: Guest, observed: Observed) -> None:
        before = self._known(guest)
        reason, message = before.reason, before.message
        if observed is Observed.ENDED:
            reason, message = _ENDS[guest.end]
        elif before.phase != vm_pb2.VM_PHASE_POWERING_OFF:
            reason, message = "", ""
        now = statuses.stamp(self._now())
        off = vm_pb2.VM_PHASE_POWERED_OFF
        generation = _generation(guest.order)
        status = statuses.entered(before, off, now, generation=generation, reason=reason, message=message)
        status.failures = 0
        guest.not_before = 0.0
        self.report(guest, status)

    def _shut_down(self, guest: Guest, _observed: Observed) -> None:
        is_erase = ordered(guest.order, guest.status) is Ordered.ERASE
        if not is_erase:
            now = statuses.stamp(self._now())
            self.report(guest, statuses.entered(self._known(guest), vm_pb2.VM_PHASE_POWERING_OFF, now))
        self._begin(guest, Deed.SHUT_DOWN)

    def _plug(self, guest: Guest, _observed: Observed) -> None:
        self._begin(guest, Deed.PLUG)

    def _erase(self, guest: Guest, _observed: Observed) -> None:
        self._begin(guest, Deed.ERASE)

    def _gone(self, guest: Guest, _observed: Observed) -> None:
        order = guest.order
        if order is None:
            return
        guest.doing = Doing.LEAVING
        status = statuses.gone(guest.status, order, guest.host_id)
        guest.status, guest.before_claim = None, None
        self._outbox.put(guest, status, is_gone=True)

    # Deeds and how they end

    def halt(self, guest: Guest, done: Callable[[], None]) -> None:
        """Shuts the guest down because the agent ends; `done` is called when it is off, or could not be."""
        self._halting[guest] = done
        if guest.doing in DEEDS_UNDER_WAY:
            self._driver.interrupt(guest.host_id, guest.vm_id)
        elif guest.power is Power.RUNNING:
            self._begin(guest, Deed.HALT)
        else:
            self._halting.pop(guest)()

    def _halted(self, guest: Guest, work: Work, outcome: Outcome) -> None:
        """A deed has ended while the agent ends. What it has left running is shut down like all others."""
        guest.doing = Doing.NOTHING
        if work.deed is Deed.START and outcome.is_done:
            guest.power = Power.RUNNING
        elif outcome.is_done:
            guest.power = Power.OFF
        if work.deed is not Deed.HALT and guest.power is Power.RUNNING:
            self._begin(guest, Deed.HALT)
        elif guest in self._halting:
            self._halting.pop(guest)()

    def _begin(self, guest: Guest, deed: Deed) -> None:
        guest.doing = DOING_OF_DEED[deed]
        self._driver.begin(self._work(guest, deed))

    def _work(self, guest: Guest, deed: Deed) -> Work:
        order = guest.order
        grace = 0.0
        if deed is Deed.SHUT_DOWN or deed is Deed.HALT:
            grace = float((order.spec.template.shutdown_grace_s if order is not None else 0) or DEFAULT_GRACE_S)
        if deed is Deed.HALT:
            grace = min(grace, self._longest_halt_s)
        return Work(
            deed=deed,
            host_id=guest.host_id,
            vm_id=guest.vm_id,
            uid=guest.uid,
            order=order,
            status=self._known(guest),
            done=partial(self._done, guest),
            progress=partial(self._progress, guest),
            grace_s=grace,
        )

    def _done(self, guest: Guest, work: Work, outcome: Outcome) -> None:
        if self.is_halting:
            self._halted(guest, work, outcome)
            return
        self._metrics.did(work.deed, outcome)
        guest.doing = Doing.NOTHING
        if outcome.is_done:
            self._succeeded(guest, work, outcome)
        elif not outcome.was_interrupted:
            self._failed(guest, work, outcome)
        is_as_ordered = work.deed is Deed.START and outcome.is_done and work.order is guest.order
        if guest.doing is Doing.NOTHING and not is_as_ordered:
            self.decide(guest)

    def _succeeded(self, guest: Guest, work: Work, outcome: Outcome) -> None:
        if work.deed is Deed.START:
            self._runs(guest, work)
        elif work.deed is Deed.ERASE:
            self._erased(guest)
        else:
            self._set_power(guest, Power.OFF, End.NONE)
            now = statuses.stamp(self._now())
            guest.status = statuses.entered(
                self._known(guest), vm_pb2.VM_PHASE_POWERING_OFF, now,
                reason=outcome.reason or "", message=outcome.message,
            )  # fmt: skip

    def _runs(self, guest: Guest, work: Work) -> None:
        if guest.end is not End.NONE:  # something was heard of it meanwhile: look what is true now
            self._look(guest.host_id)
        self._set_power(guest, Power.RUNNING, End.NONE)
        guest.not_before = 0.0
        self.report(guest, statuses.running(work.status, statuses.stamp(self._now()), _generation(work.order)))
        if guest.ordered_at:
            self._metrics.started_after(self._monotonic() - guest.ordered_at)
            guest.ordered_at = 0.0

    def _erased(self, guest: Guest) -> None:
        self._set_power(guest, Power.ABSENT, End.NONE)
        wanted = ordered(guest.order, guest.status)
        if wanted is Ordered.ERASE or wanted is Ordered.ERASE_HARD:
            self._gone(guest, Observed.ABSENT)
        else:
            guest.status = None

    def _failed(self, guest: Guest, work: Work, outcome: Outcome) -> None:
        status = statuses.failed(self._known(guest), outcome, self._now())
        guest.not_before = _unix(status)
        if work.deed is Deed.START:
            self._set_power(guest, Power.OFF, End.NONE)
        self._log.warning(
            "deed failed", deed=work.deed.value, vm_id=guest.vm_id, host_id=guest.host_id, step=outcome.step,
            reason=outcome.reason, error=outcome.message,
        )  # fmt: skip
        self.report(guest, status)
        if work.deed is not Deed.START:
            self._look(guest.host_id)

    def _progress(self, guest: Guest, work: Work, step: str, percent: int) -> None:
        status = guest.status
        if status is None or guest.doing is not DOING_OF_DEED[work.deed]:
            return
        guest.status = statuses.stepped(status, step, percent)
        if status.phase in (vm_pb2.VM_PHASE_STARTING, vm_pb2.VM_PHASE_POWERING_OFF):
            self._outbox.put(guest, guest.status)

    # Small parts

    def _known(self, guest: Guest) -> VmStatus:
        """The guest's status, or the beginning of one."""
        if guest.status is not None:
            return guest.status
        order = guest.order
        epoch = order.epoch if order is not None else 0
        return statuses.remains(self._bases[guest.host_id], guest.uid, epoch)

    def _set_power(self, guest: Guest, power: Power, end: End) -> None:
        self._changes += 1
        guest.changed = self._changes
        guest.power, guest.end = power, end

    def _must_wait(self, guest: Guest) -> bool:
        left = guest.not_before - self._now() if guest.not_before else 0.0
        if left <= 0:
            return False
        if not guest.waits:
            guest.waits = True
            self._timers.after(left, partial(self._waited, guest))
        return True

    def _waited(self, guest: Guest) -> None:
        guest.waits = False
        self.decide(guest)

    def _tell(self, guest: Guest, status: VmStatus) -> None:
        before = guest.status.phase if guest.status is not None else 0
        if before != status.phase:
            self._log.info(
                "phase entered", vm_id=guest.vm_id, host_id=guest.host_id, reason=status.reason or None,
                before=vm_pb2.VmPhase.Name(before).removeprefix("VM_PHASE_"),
                now=vm_pb2.VmPhase.Name(status.phase).removeprefix("VM_PHASE_"),
            )  # fmt: skip


def _generation(order: VmOrder | None) -> int:
    return order.intent.generation if order is not None else 0


def _unix(status: VmStatus) -> float:
    return status.not_before.seconds + status.not_before.nanos / 1e9
