"""What everything that leads a guest needs a hand for: know it, report it, begin a deed on it. Decides nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from moln.compute.v1 import vm_pb2
from moln.compute.v1.vm_pb2 import Operation, VmStatus
from moln.node.v1.node_service_pb2 import VmOrder
from services.common.obs.logs import get_logger
from services.hostagent.controllers.outbox import Outbox
from services.hostagent.core import status as statuses
from services.hostagent.core.guest import DOING_OF_DEED, Guest
from services.hostagent.drivers.ports import Deed, End, Outcome, Power, PowerDriver, Timing, Work

DEFAULT_GRACE_S = 60

Done = Callable[[Guest, Work, Outcome], None]
Progress = Callable[[Guest, Work, str, int], None]


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


class Hand:
    """Statuses, power and deeds of all guests. `bases` holds by host what all its statuses have in common."""

    def __init__(
        self,
        driver: PowerDriver,
        outbox: Outbox,
        timers: Timing,
        bases: dict[int, VmStatus],
        metrics: LifeMetrics,
        *,
        now: Callable[[], float],
        look: Callable[[int], None],
        guest_name: Callable[[int, str], str] = lambda vm_id, _uid: f"vm-{vm_id}",
        is_verbose: bool = True,
    ) -> None:
        self.driver, self.outbox, self.timers, self.metrics = driver, outbox, timers, metrics
        self.now, self.look, self.guest_name = now, look, guest_name
        self.bases = bases
        self.changes = 0
        """Number of the last change of any guest's power."""
        self._is_verbose = is_verbose
        self._done: Done = lambda _guest, _work, _outcome: None
        self._progress: Progress = lambda _guest, _work, _step, _percent: None
        self._log = get_logger("life")

    def answers_to(self, done: Done, progress: Progress) -> None:
        """Who is told how deeds go on and end."""
        self._done, self._progress = done, progress

    def known(self, guest: Guest) -> VmStatus:
        """The guest's status, or the beginning of one."""
        if guest.status is not None:
            return guest.status
        epoch = guest.order.epoch if guest.order is not None else 0
        return statuses.remains(self.bases[guest.host_id], guest.uid, epoch)

    def report(self, guest: Guest, status: VmStatus) -> None:
        """Makes `status` the guest's and reports it."""
        if self._is_verbose:
            self._tell(guest, status)
        guest.status = status
        self.driver.remember(status, guest.vm_id)
        self.outbox.put(guest, status)

    def set_power(self, guest: Guest, power: Power, end: End = End.NONE) -> None:
        """The hypervisor has this of the guest from now on."""
        self.note_change(guest)
        guest.power, guest.end = power, end

    def note_change(self, guest: Guest) -> None:
        """What a look finds that began before this says nothing about the guest."""
        self.changes += 1
        guest.changed = self.changes

    def begin(
        self, guest: Guest, deed: Deed, *, operation: Operation | None = None, most_grace_s: float = float("inf")
    ) -> None:
        """Begins a deed, of which there is one at a time."""
        guest.doing = DOING_OF_DEED[deed]
        self.driver.begin(self._work(guest, deed, operation, most_grace_s))

    def begin_background(self, guest: Guest, operation: Operation) -> None:
        """Begins an operation beside whatever else there is."""
        guest.background = operation.id
        work = self._work(guest, Deed.OPERATE, operation, 0.0)
        work.is_background = True
        self.driver.begin(work)

    def _work(self, guest: Guest, deed: Deed, operation: Operation | None, most_grace_s: float) -> Work:
        order = guest.order
        grace = 0.0
        if deed is Deed.SHUT_DOWN or deed is Deed.HALT:
            stated = order.spec.template.shutdown_grace_s if order is not None else 0
            grace = min(float(stated or DEFAULT_GRACE_S), most_grace_s)
        return Work(
            deed=deed,
            host_id=guest.host_id,
            vm_id=guest.vm_id,
            uid=guest.uid,
            order=order,
            status=self.known(guest),
            done=partial(self._done, guest),
            progress=partial(self._progress, guest),
            grace_s=grace,
            operation=operation,
        )

    def _tell(self, guest: Guest, status: VmStatus) -> None:
        before = guest.status.phase if guest.status is not None else 0
        if before != status.phase:
            self._log.info(
                "phase entered", vm_id=guest.vm_id, host_id=guest.host_id, reason=status.reason or None,
                before=vm_pb2.VmPhase.Name(before).removeprefix("VM_PHASE_"),
                now=vm_pb2.VmPhase.Name(status.phase).removeprefix("VM_PHASE_"),
            )  # fmt: skip


def generation(order: VmOrder | None) -> int:
    """Generation of the intent that an order carries."""
    return order.intent.generation if order is not None else 0


def unix(status: VmStatus) -> float:
    """When a failed step is tried again, in Unix seconds."""
    return status.not_before.seconds + status.not_before.nanos / 1e9
