"""Leads one guest from what is observed to what is ordered: asks the table, claims, has the driver do it, reports.

It is called whenever something has changed, carries no event's content, and does one thing at a time for a guest. What
a look at the hypervisor finds goes the same way as what an order says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from moln.compute.v1 import vm_pb2
from services.common.domain.reasons import Reason
from services.common.obs.logs import get_logger
from services.hostagent.controllers.hand import DEFAULT_GRACE_S, Hand, generation, unix
from services.hostagent.controllers.moving import DEEDS as MOVING_DEEDS
from services.hostagent.controllers.moving import Moving
from services.hostagent.controllers.operations import Operations
from services.hostagent.core import status as statuses
from services.hostagent.core.guest import DOING_OF_DEED, Doing, Guest
from services.hostagent.core.observed import Observed, Ordered, observe, ordered
from services.hostagent.core.table import INTERRUPTED_BY, PAUSED, TABLE, Act
from services.hostagent.drivers.ports import Deed, End, Outcome, Power, Work

RETRY_S = 1.0
"""Pause before a report or claim is repeated that the gateway could not store."""
FINAL_REFUSALS = frozenset({Reason.EPOCH_PAST, Reason.HOST_FENCED, Reason.VM_NOT_FOUND, Reason.STATE_FORBIDS})
"""Answers after which a claim is not repeated before another order comes."""

DEEDS_UNDER_WAY = frozenset(set(DOING_OF_DEED.values()))

_ENDS = {
    End.SHUT_DOWN: (Reason.GUEST_SHUT_DOWN, "the guest shut down from within"),
    End.CRASHED: (Reason.GUEST_CRASHED, "the guest crashed"),
    End.VANISHED: (Reason.GUEST_VANISHED, "the guest is gone without moln's doing"),
    End.NONE: (Reason.GUEST_VANISHED, "the guest is gone without moln's doing"),
    End.BY_AGENT: (Reason.GUEST_VANISHED, "the guest was stopped when the agent ended"),
}
_SPOKEN_OF = frozenset(
    {
        vm_pb2.VM_PHASE_STARTING, vm_pb2.VM_PHASE_POWERING_OFF, vm_pb2.VM_PHASE_SUSPENDING, vm_pb2.VM_PHASE_SAVING,
        vm_pb2.VM_PHASE_MIGRATING, vm_pb2.VM_PHASE_READY,
    }
)  # fmt: skip
"""Phases in which progress is reported."""


class Life:
    """Decides and does, for any guest."""

    def __init__(
        self,
        hand: Hand,
        *,
        monotonic: Callable[[], float],
        forget: Callable[[Guest], None],
        longest_halt_s: float = DEFAULT_GRACE_S,
    ) -> None:
        self._hand, self._driver, self._outbox = hand, hand.driver, hand.outbox
        self._now, self._monotonic, self._forget = hand.now, monotonic, forget
        self._moving, self._operations = Moving(hand), Operations(hand)
        self._log = get_logger("life")
        self._longest_halt_s = longest_halt_s
        self._halting: dict[Guest, Callable[[], None]] = {}
        self.is_halting = False
        """The agent ends: nothing new is begun."""
        hand.answers_to(self._done, self._progress)
        self._acts: dict[Act, Callable[[Guest, Observed], None]] = {
            Act.KEEP: self._keep,
            Act.START: self._claim,
            Act.RETRY: self._fell,
            Act.CONFIRM: self._confirm,
            Act.REST: self._rest,
            Act.SETTLE: self._settle,
            Act.SHUT_DOWN: partial(self._enter, phase=vm_pb2.VM_PHASE_POWERING_OFF, deed=Deed.SHUT_DOWN),
            Act.PLUG: self._plug,
            Act.SUSPEND: partial(self._enter, phase=vm_pb2.VM_PHASE_SUSPENDING, deed=Deed.SUSPEND),
            Act.UPLOAD: partial(self._enter, phase=vm_pb2.VM_PHASE_SAVING, deed=Deed.UPLOAD),
            Act.MIGRATE: self._moving.migrate,
            Act.HAND_OVER: self._moving.hand_over,
            Act.STAND: self._moving.stand,
            Act.CLAIM: self._moving.claim,
            Act.RECEIVE: self._moving.receive,
            Act.LOOK: self._look,
            Act.ARRIVE: self._moving.arrive,
            Act.FETCH: self._moving.fetch,
            Act.ERASE: self._erase,
            Act.GONE: self._gone,
        }

    @property
    def changes(self) -> int:
        """Number of the last change of any guest's power."""
        return self._hand.changes

    def decide(self, guest: Guest) -> None:
        """Looks at the guest and does the next thing, if there is one. Idempotent."""
        if self.is_halting:
            return
        wanted = ordered(guest.order, guest.status)
        if guest.background or guest.doing is Doing.OPERATING:
            self._operations.review(guest)
        if guest.doing is not Doing.NOTHING:
            if wanted in INTERRUPTED_BY[guest.doing]:
                self._driver.interrupt(guest.host_id, guest.vm_id)
            return
        observed = observe(guest)
        act = TABLE[observed, wanted]
        if act is Act.LOOK and guest.sighted:
            act = TABLE[Observed.FETCHED, wanted]
        if act in PAUSED and self._must_wait(guest):
            return
        self._acts[act](guest, observed)
        if act in _STILL:
            self._operations.consider(guest, observe(guest))

    def power(self, guest: Guest, power: Power, end: End) -> None:
        """Takes in what the hypervisor has of the guest now, and decides."""
        if guest.doing is Doing.STARTING and power is not Power.RUNNING:
            self._hand.note_change(guest)
            guest.end = end  # looked at when the start has ended
            return
        has_arrived = guest.doing is Doing.RECEIVING and power is Power.RUNNING
        if guest.doing is not Doing.NOTHING and not has_arrived:
            return
        if power is guest.power and end is guest.end:
            return
        self._hand.set_power(guest, power, end)
        self.decide(guest)

    def addresses(self, guest: Guest, found: Sequence[str]) -> None:
        """Takes in what an agent in the guest says of its addresses."""
        status = guest.status
        if status is None or status.phase != vm_pb2.VM_PHASE_RUNNING or guest.doing is not Doing.NOTHING:
            return
        if list(status.guest_addresses) != list(found):
            self._hand.report(guest, statuses.with_addresses(status, found))

    def unsure(self, guest: Guest) -> None:
        """Looks that have begun already say nothing of the guest any more."""
        self._hand.note_change(guest)

    def look_again(self, guest: Guest) -> None:
        """What was read of it is older than what is known."""
        self._hand.look(guest.host_id)

    # Claims

    def granted(self, guest: Guest) -> None:
        """The claim is stored: the guest may be created, if that is still what is ordered."""
        guest.doing, guest.before_claim = Doing.NOTHING, None
        status = guest.status
        is_wanted = ordered(guest.order, status) is Ordered.RUN and not self.is_halting
        if not is_wanted or status is None or status.phase != vm_pb2.VM_PHASE_STARTING:
            self.decide(guest)
            return
        if guest.power is not Power.SAVED:
            self._hand.set_power(guest, Power.OFF)
        guest.end = End.NONE
        self._driver.remember(status, guest.vm_id)
        self._hand.begin(guest, Deed.START)

    def refused(self, guest: Guest, reason: str) -> None:
        """The claim is not stored: nothing has been touched, and what was reported before stands."""
        self._hand.metrics.refused()
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

    def _look(self, guest: Guest, _observed: Observed) -> None:
        self._hand.look(guest.host_id)

    def _claim(self, guest: Guest, _observed: Observed) -> None:
        order = guest.order
        if order is None or order is guest.refused:
            return
        before = guest.status
        guest.before_claim, guest.claimed = before, order
        guest.status = statuses.claimed(self._hand.bases[guest.host_id], before, order, statuses.stamp(self._now()))
        name = order.spec.imported_as or self._hand.guest_name(guest.vm_id, order.uid)
        guest.status.hypervisor_name = name
        guest.doing = Doing.CLAIMING
        self._outbox.put(guest, guest.status, is_claim=True)

    def _fell(self, guest: Guest, _observed: Observed) -> None:
        reason, message = _ENDS[guest.end]
        status = statuses.fell(self._hand.known(guest), reason, message, self._now())
        guest.not_before = unix(status)
        self._hand.report(guest, status)
        self.decide(guest)

    def _confirm(self, guest: Guest, _observed: Observed) -> None:
        status = self._hand.known(guest)
        current = generation(guest.order)
        is_said = status.phase == vm_pb2.VM_PHASE_RUNNING and status.observed_generation == current
        if is_said:
            return
        now = statuses.stamp(self._now())
        fresh = statuses.entered(status, vm_pb2.VM_PHASE_RUNNING, now, generation=current)
        if not fresh.HasField("start_time"):
            fresh.start_time.CopyFrom(now)
        self._hand.report(guest, fresh)

    def _rest(self, guest: Guest, observed: Observed) -> None:
        before = self._hand.known(guest)
        reason, message = before.reason, before.message
        if observed is Observed.ENDED:
            reason, message = _ENDS[guest.end]
        elif before.phase != vm_pb2.VM_PHASE_POWERING_OFF:
            reason, message = "", ""
        now = statuses.stamp(self._now())
        off = vm_pb2.VM_PHASE_POWERED_OFF
        status = statuses.entered(before, off, now, generation=generation(guest.order), reason=reason, message=message)
        status.failures = 0
        guest.not_before = 0.0
        self._hand.report(guest, status)

    def _settle(self, guest: Guest, observed: Observed) -> None:
        before = self._hand.known(guest)
        phase = vm_pb2.VM_PHASE_SAVED if observed is Observed.STORED else vm_pb2.VM_PHASE_SUSPENDED
        current = generation(guest.order)
        if before.phase == phase and before.observed_generation == current:
            return
        status = statuses.entered(before, phase, statuses.stamp(self._now()), generation=current)
        status.failures = 0
        guest.not_before = 0.0
        self._hand.report(guest, status)

    def _enter(self, guest: Guest, _observed: Observed, *, phase: vm_pb2.VmPhase, deed: Deed) -> None:
        """Reports the phase and begins its deed; what is to be erased says no more."""
        if ordered(guest.order, guest.status) is not Ordered.ERASE:
            self._hand.report(guest, statuses.entered(self._hand.known(guest), phase, statuses.stamp(self._now())))
        self._hand.begin(guest, deed)

    def _plug(self, guest: Guest, _observed: Observed) -> None:
        self._hand.begin(guest, Deed.PLUG)

    def _erase(self, guest: Guest, _observed: Observed) -> None:
        if guest.background:
            return  # it was told to end; its end is heard of
        self._hand.begin(guest, Deed.ERASE)

    def _gone(self, guest: Guest, _observed: Observed) -> None:
        order = guest.order
        if order is None:
            return
        guest.doing = Doing.LEAVING
        status = statuses.gone(guest.status, order, guest.host_id)
        guest.status, guest.before_claim = None, None
        self._outbox.put(guest, status, is_gone=True)

    # The agent's end

    def halt(self, guest: Guest, done: Callable[[], None]) -> None:
        """Shuts the guest down because the agent ends; `done` is called when it is off, or could not be."""
        self._halting[guest] = done
        if guest.doing in DEEDS_UNDER_WAY:
            self._driver.interrupt(guest.host_id, guest.vm_id)
        elif guest.power is Power.RUNNING:
            self._hand.begin(guest, Deed.HALT, most_grace_s=self._longest_halt_s)
        else:
            self._halting.pop(guest)()

    def _halted(self, guest: Guest, work: Work, outcome: Outcome) -> None:
        """A deed has ended while the agent ends. What it has left running is shut down like all others."""
        if work.is_background:
            return
        guest.doing = Doing.NOTHING
        if work.deed is Deed.START and outcome.is_done:
            guest.power = Power.RUNNING
        elif outcome.is_done and work.deed in _OFF_AFTER:
            guest.power = Power.OFF
        if work.deed is not Deed.HALT and guest.power is Power.RUNNING:
            self._hand.begin(guest, Deed.HALT, most_grace_s=self._longest_halt_s)
        elif guest in self._halting:
            self._halting.pop(guest)()

    # Deeds and how they end

    def _done(self, guest: Guest, work: Work, outcome: Outcome) -> None:
        if self.is_halting:
            self._halted(guest, work, outcome)
            return
        self._hand.metrics.did(work.deed, outcome)
        if work.is_background:
            self._operations.ended(guest, work, outcome)
            self.decide(guest)
            return
        guest.doing = Doing.NOTHING
        if work.deed is Deed.OPERATE:
            self._operations.ended(guest, work, outcome)
            self._hand.look(guest.host_id)
        elif work.deed in MOVING_DEEDS:
            self._moving.ended(guest, work, outcome)
        elif outcome.is_done:
            self._succeeded(guest, work, outcome)
        elif not outcome.was_interrupted:
            self._failed(guest, work, outcome)
        is_as_ordered = work.deed is Deed.START and outcome.is_done and work.order is guest.order
        if guest.doing is Doing.NOTHING and not (is_as_ordered and not _asks_for_more(guest)):
            self.decide(guest)

    def _succeeded(self, guest: Guest, work: Work, outcome: Outcome) -> None:
        now = statuses.stamp(self._now())
        match work.deed:
            case Deed.START:
                self._runs(guest, work, outcome)
            case Deed.ERASE:
                self._erased(guest)
            case Deed.SUSPEND:
                self._hand.set_power(guest, Power.SAVED)
                guest.status = statuses.with_facts(self._hand.known(guest), outcome)
            case Deed.UPLOAD:
                stored = statuses.with_facts(self._hand.known(guest), outcome)
                self._hand.report(
                    guest, statuses.entered(stored, vm_pb2.VM_PHASE_SAVED, now, generation=generation(guest.order))
                )
            case _:
                self._hand.set_power(guest, Power.OFF)
                guest.status = statuses.entered(
                    self._hand.known(guest), vm_pb2.VM_PHASE_POWERING_OFF, now,
                    reason=outcome.reason or "", message=outcome.message,
                )  # fmt: skip

    def _runs(self, guest: Guest, work: Work, outcome: Outcome) -> None:
        if guest.end is not End.NONE:  # something was heard of it meanwhile: look what is true now
            self._hand.look(guest.host_id)
        self._hand.set_power(guest, Power.RUNNING)
        guest.not_before = 0.0
        known = statuses.with_facts(work.status, outcome)
        self._hand.report(guest, statuses.running(known, statuses.stamp(self._now()), generation(work.order)))
        if guest.ordered_at:
            self._hand.metrics.started_after(self._monotonic() - guest.ordered_at)
            guest.ordered_at = 0.0

    def _erased(self, guest: Guest) -> None:
        self._hand.set_power(guest, Power.ABSENT)
        wanted = ordered(guest.order, guest.status)
        if wanted is Ordered.ERASE or wanted is Ordered.ERASE_HARD:
            self._gone(guest, Observed.ABSENT)
        else:
            guest.status = None

    def _failed(self, guest: Guest, work: Work, outcome: Outcome) -> None:
        status = statuses.failed(self._hand.known(guest), outcome, self._now())
        guest.not_before = unix(status)
        if work.deed is Deed.START and guest.power is not Power.SAVED:
            self._hand.set_power(guest, Power.OFF)
        self._log.warning(
            "deed failed", deed=work.deed.value, vm_id=guest.vm_id, host_id=guest.host_id, step=outcome.step,
            reason=outcome.reason, error=outcome.message,
        )  # fmt: skip
        self._hand.report(guest, status)
        if ordered(guest.order, status) in _GOING:
            self._moving.give_up(guest, outcome)
        if work.deed is not Deed.START:
            self._hand.look(guest.host_id)

    def _progress(self, guest: Guest, work: Work, step: str, percent: int) -> None:
        status = guest.status
        if work.deed is Deed.OPERATE:
            self._operations.progress(guest, work, step, percent)
            return
        if status is None or guest.doing is not DOING_OF_DEED[work.deed]:
            return
        guest.status = statuses.stepped(status, step, percent)
        if status.phase in _SPOKEN_OF:
            self._outbox.put(guest, guest.status)

    # Small parts

    def _must_wait(self, guest: Guest) -> bool:
        left = guest.not_before - self._now() if guest.not_before else 0.0
        if left <= 0:
            return False
        if not guest.waits:
            guest.waits = True
            self._hand.timers.after(left, partial(self._waited, guest))
        return True

    def _waited(self, guest: Guest) -> None:
        guest.waits = False
        self.decide(guest)


_STILL = frozenset({Act.KEEP, Act.CONFIRM, Act.REST, Act.SETTLE})
"""After these the guest is as it should be, where it is: an operation that waited for that is begun."""
_OFF_AFTER = frozenset({Deed.SHUT_DOWN, Deed.PLUG, Deed.HALT, Deed.SUSPEND, Deed.ERASE, Deed.MIGRATE})
_GOING = frozenset({Ordered.SAVE_AND_GO, Ordered.OFF_AND_GO})


def _asks_for_more(guest: Guest) -> bool:
    """Whether the order holds an operation: then the guest is looked at once more when it runs."""
    order = guest.order
    return order is not None and (order.intent.HasField("operation") or order.intent.HasField("background"))
