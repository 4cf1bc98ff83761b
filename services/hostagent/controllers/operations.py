"""Operations that the node carries out: begun when the guest is as it should be, stored as started first, done once.

After a crash in the middle an operation is begun again: drivers ask the hypervisor what is done already.
"""

from __future__ import annotations

from moln.compute.v1 import vm_pb2
from moln.compute.v1.vm_pb2 import Operation, OperationStatus
from moln.node.v1.node_service_pb2 import VmOrder
from services.common.domain.reasons import Reason
from services.hostagent.controllers.hand import Hand
from services.hostagent.core import status as statuses
from services.hostagent.core.guest import Doing, Guest
from services.hostagent.core.observed import Observed
from services.hostagent.core.operations import is_for_node, is_ready
from services.hostagent.drivers.ports import Deed, Outcome, Work

_CALM = frozenset({Observed.RUNNING, Observed.RESTING, Observed.SUSPENDED})


class Operations:
    """Begins them, and reports how they go on and end."""

    def __init__(self, hand: Hand) -> None:
        self._hand = hand

    def consider(self, guest: Guest, observed: Observed) -> bool:
        """Begins what is asked for, where nothing else is to be done with the guest; True where it has begun one."""
        order = guest.order
        if order is None or observed not in _CALM:
            return False
        self._in_background(guest, order)
        operation = order.intent.operation
        if not _is_due(operation, self._hand.known(guest).operation, order):
            return False
        self._start(guest, operation, is_background=False)
        if not operation.is_cancelled:
            self._hand.begin(guest, Deed.OPERATE, operation=operation)
        return True

    def review(self, guest: Guest) -> None:
        """An order has come while one is under way: it may be cancelled by that, or not be asked for any more."""
        intent = guest.order.intent if guest.order is not None else vm_pb2.VmIntent()
        place = guest.host_id, guest.vm_id
        if guest.background and _is_void(intent.background, guest.background):
            self._hand.driver.interrupt(*place, is_background=True)
        if guest.doing is Doing.OPERATING and _is_void(intent.operation, self._hand.known(guest).operation.id):
            self._hand.driver.interrupt(*place)

    def ended(self, guest: Guest, work: Work, outcome: Outcome) -> None:
        """Reports the result. One that was interrupted by a cancel or by what supersedes it has failed."""
        if work.operation is None:
            return
        if work.is_background:
            guest.background = ""
        result = OperationStatus(id=work.operation.id, is_done=True, results=outcome.results, progress_percent=100)
        if not outcome.is_done:
            is_cancelled = outcome.was_interrupted
            result.reason = Reason.OPERATION_CANCELLED if is_cancelled else outcome.reason or Reason.OPERATION_FAILED
            result.message = "it was given up" if is_cancelled else outcome.message
        status = statuses.with_facts(self._hand.known(guest), outcome)
        self._hand.report(guest, statuses.operated(status, result, is_background=work.is_background))

    def progress(self, guest: Guest, work: Work, step: str, percent: int) -> None:
        """Reports how far it is."""
        status = guest.status
        if status is None or work.operation is None:
            return
        done = OperationStatus(id=work.operation.id, progress_percent=percent, message=step)
        guest.status = statuses.operated(status, done, is_background=work.is_background)
        self._hand.outbox.put(guest, guest.status)

    def _in_background(self, guest: Guest, order: VmOrder) -> None:
        operation = order.intent.background
        if guest.background or not _is_due(operation, self._hand.known(guest).background, order):
            return
        self._start(guest, operation, is_background=True)
        if not operation.is_cancelled:
            self._hand.begin_background(guest, operation)

    def _start(self, guest: Guest, operation: Operation, *, is_background: bool) -> None:
        """Reports that it has begun; one that was cancelled before that ends at once."""
        started = OperationStatus(id=operation.id, is_done=operation.is_cancelled)
        if operation.is_cancelled:
            started.reason, started.message = Reason.OPERATION_CANCELLED, "it was given up before it began"
        self._hand.report(guest, statuses.operated(self._hand.known(guest), started, is_background=is_background))


def _is_due(operation: Operation, known: OperationStatus, order: VmOrder) -> bool:
    is_over = known.id == operation.id and known.is_done
    return bool(operation.id) and is_for_node(operation) and not is_over and is_ready(operation, order)


def _is_void(wanted: Operation, operation_id: str) -> bool:
    return wanted.id != operation_id or wanted.is_cancelled
