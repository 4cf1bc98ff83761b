"""A guest's move as its two nodes see it: what each does when it is asked to, and what it reports. Decides no move."""

from __future__ import annotations

from moln.compute.v1 import vm_pb2
from moln.compute.v1.vm_pb2 import OperationStatus
from services.common.domain.reasons import Reason
from services.hostagent.controllers.hand import Hand, generation
from services.hostagent.core import status as statuses
from services.hostagent.core.guest import Doing, Guest
from services.hostagent.core.observed import FETCHED, Observed
from services.hostagent.drivers.ports import DONE, Deed, Outcome, Power, Work

ARRIVED = "arrived"
"""Result of a live move at its target: the guest runs there."""
DEEDS = frozenset({Deed.RECEIVE, Deed.FETCH, Deed.MIGRATE, Deed.HAND_OVER})


class Moving:
    """The acts of a move, and how their deeds end."""

    def __init__(self, hand: Hand) -> None:
        self._hand = hand

    # The target

    def claim(self, guest: Guest, _observed: Observed) -> None:
        """Claims a place; when that is granted, it is prepared."""
        order = guest.order
        if order is None or order is guest.refused:
            return
        guest.before_claim, guest.claimed = guest.status, order
        now = statuses.stamp(self._hand.now())
        guest.status = statuses.place_claimed(self._hand.bases[guest.host_id], order, now)
        guest.status.hypervisor_name = self._hand.guest_name(guest.vm_id, order.uid)
        guest.doing = Doing.CLAIMING
        self._hand.outbox.put(guest, guest.status, is_claim=True)

    def receive(self, guest: Guest, _observed: Observed) -> None:
        """Prepares the place."""
        self._hand.begin(guest, Deed.RECEIVE)

    def fetch(self, guest: Guest, _observed: Observed) -> None:
        """Fetches disks and memory, unless that has failed already."""
        if not self._hand.known(guest).move.reason:
            self._hand.begin(guest, Deed.FETCH)

    def arrive(self, guest: Guest, _observed: Observed) -> None:
        """The guest runs here now."""
        status = self._hand.known(guest)
        if status.phase == vm_pb2.VM_PHASE_RUNNING and ARRIVED in status.move.results:
            return
        now = statuses.stamp(self._hand.now())
        move = _ended(_move_id(guest), DONE, {**status.move.results, ARRIVED: "yes"})
        fresh = statuses.moved(status, vm_pb2.VM_PHASE_RUNNING, move, now, generation=generation(guest.order))
        fresh.start_time.CopyFrom(now)
        self._hand.report(guest, fresh)

    # The source

    def migrate(self, guest: Guest, _observed: Observed) -> None:
        """Hands the running guest over; begun again, it finds out what became of it."""
        now = statuses.stamp(self._hand.now())
        move = OperationStatus(id=_move_id(guest))
        phase = vm_pb2.VM_PHASE_MIGRATING
        self._hand.report(guest, statuses.moved(self._hand.known(guest), phase, move, now))
        self._hand.begin(guest, Deed.MIGRATE)

    def hand_over(self, guest: Guest, _observed: Observed) -> None:
        """Lets go of a guest that is off."""
        self._hand.begin(guest, Deed.HAND_OVER)

    def stand(self, guest: Guest, _observed: Observed) -> None:
        """The move has come to nothing: it is to be given up, or the guest has ended before it was handed over."""
        order = guest.order
        if order is not None and order.move.move.is_cancelled:
            failed = Outcome(False, Reason.OPERATION_CANCELLED, "the move was given up, as was asked for")
        else:
            failed = Outcome(False, Reason.MIGRATION_FAILED, "the guest ended before it was handed over")
        self.give_up(guest, failed)

    def give_up(self, guest: Guest, outcome: Outcome) -> None:
        """Reports that this node's part has failed. A guest that runs goes on; one that is off may be started again."""
        status = self._hand.known(guest)
        phase = vm_pb2.VM_PHASE_RUNNING if guest.power is Power.RUNNING else status.phase
        now = statuses.stamp(self._hand.now())
        self._hand.report(guest, statuses.moved(status, phase, _ended(_move_id(guest), outcome), now))

    # How deeds end

    def ended(self, guest: Guest, work: Work, outcome: Outcome) -> None:
        """A deed of a move has ended, well or not; one that was interrupted has changed nothing."""
        if outcome.was_interrupted:
            if work.deed is Deed.MIGRATE:
                self._hand.look(guest.host_id)
            return
        if not outcome.is_done:
            self._failed(guest, work, outcome)
            return
        status = statuses.with_facts(self._hand.known(guest), outcome)
        now = statuses.stamp(self._hand.now())
        results = {**status.move.results, **outcome.results}
        if work.deed in (Deed.RECEIVE, Deed.FETCH):
            results.update({FETCHED: "yes"} if work.deed is Deed.FETCH else {})
            self._found(guest, work)
            phase = vm_pb2.VM_PHASE_READY
        else:
            phase = vm_pb2.VM_PHASE_HANDED_OVER
            if work.deed is Deed.MIGRATE:
                self._hand.set_power(guest, Power.OFF)
        self._hand.report(guest, statuses.moved(status, phase, _ended(_move_id(guest), DONE, results), now))

    def _found(self, guest: Guest, work: Work) -> None:
        """What is here now, unless the hypervisor has told of the guest's arrival meanwhile."""
        if guest.power is Power.RUNNING:
            return
        saved = work.order.move.peer_status.saved if work.order is not None else ()
        has_memory = work.deed is Deed.FETCH and any(each.is_memory for each in saved)
        self._hand.set_power(guest, Power.SAVED if has_memory else Power.OFF)

    def _failed(self, guest: Guest, work: Work, outcome: Outcome) -> None:
        if work.deed is Deed.MIGRATE:
            self._hand.look(guest.host_id)
        self.give_up(guest, outcome)


def _move_id(guest: Guest) -> str:
    return guest.order.move.move.move_id if guest.order is not None else ""


def _ended(move_id: str, outcome: Outcome, results: dict[str, str] | None = None) -> OperationStatus:
    reason = "" if outcome.is_done else outcome.reason or Reason.INTERNAL
    return OperationStatus(id=move_id, is_done=True, reason=reason, message=outcome.message, results=results or {})
