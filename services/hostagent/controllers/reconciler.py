"""Keeps all guests of all hosts of this process: takes in orders, answers and sights, and lets `Life` lead each guest.

It runs on the event loop without a task of its own, so that thousands of idle VMs cost nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence

from moln.compute.v1 import vm_pb2
from moln.compute.v1.vm_pb2 import VmStatus
from moln.node.v1.node_service_pb2 import ReportAck, VmOrder
from services.common.obs.logs import get_logger
from services.hostagent.controllers.life import DEEDS_UNDER_WAY, FINAL_REFUSALS, RETRY_S, Life
from services.hostagent.controllers.outbox import Outbox
from services.hostagent.core import status as statuses
from services.hostagent.core.guest import Doing, Guest
from services.hostagent.drivers.ports import End, Power, Seen, Timing

_RUNS = frozenset(
    {
        vm_pb2.VM_PHASE_RUNNING, vm_pb2.VM_PHASE_POWERING_OFF, vm_pb2.VM_PHASE_SUSPENDING, vm_pb2.VM_PHASE_MIGRATING,
        vm_pb2.VM_PHASE_FAILED,
    }
)  # fmt: skip
_RESTS = frozenset(
    {
        vm_pb2.VM_PHASE_POWERED_OFF, vm_pb2.VM_PHASE_SUSPENDED, vm_pb2.VM_PHASE_SAVED, vm_pb2.VM_PHASE_HANDED_OVER,
        vm_pb2.VM_PHASE_READY, vm_pb2.VM_PHASE_FAILED,
    }
)  # fmt: skip
_TOLD = _RUNS - {vm_pb2.VM_PHASE_FAILED} | {vm_pb2.VM_PHASE_READY}
"""Phases in which a guest may be found running without that being news."""


class Guests:
    """Guests by host and VM."""

    def __init__(self, host_ids: Iterable[int]) -> None:
        self.by_host: dict[int, dict[int, Guest]] = {host_id: {} for host_id in host_ids}

    def get(self, host_id: int, vm_id: int) -> Guest | None:
        """The guest, where it is known and the host is one of ours."""
        host = self.by_host.get(host_id)
        return host.get(vm_id) if host is not None else None

    def add(self, host_id: int, vm_id: int) -> Guest:
        """A new guest. The host must be one of ours."""
        guest = self.by_host[host_id][vm_id] = Guest(host_id, vm_id)
        return guest

    def remove(self, guest: Guest) -> None:
        """Forgets it."""
        self.by_host[guest.host_id].pop(guest.vm_id, None)

    def __iter__(self) -> Iterator[Guest]:
        for host in self.by_host.values():
            yield from host.values()

    def __len__(self) -> int:
        return sum(len(host) for host in self.by_host.values())


class Reconciler:
    """What is ordered meets what is seen here."""

    def __init__(
        self, guests: Guests, life: Life, outbox: Outbox, timers: Timing, bases: Mapping[int, VmStatus]
    ) -> None:
        self.guests = guests
        self._life, self._outbox, self._timers, self._bases = life, outbox, timers, bases
        self._foreign: dict[int, dict[int, Seen]] = {}
        self._complete: set[int] = set()
        self._log = get_logger("reconciler")

    # From the gateway

    def take_orders(self, orders: Iterable[VmOrder], now: float) -> None:
        """Each order replaces the former one for the same VM and host. `now` is monotonic."""
        guests, life = self.guests, self._life
        for order in orders:
            guest = guests.get(order.host_id, order.vm_id)
            if guest is None:
                if order.host_id not in guests.by_host:
                    self._log.warning("order for a host that is not carried here", host_id=order.host_id)
                    continue
                guest = guests.add(order.host_id, order.vm_id)
            self._replace(guest, order, now)
            life.decide(guest)

    def take_acks(self, acks: Iterable[ReportAck]) -> None:
        """Answers to reports; those to older ones are passed over."""
        for ack in acks:
            guest = self.guests.get(ack.host_id, ack.vm_id)
            if guest is not None and guest.in_flight is not None and guest.in_flight.sequence == ack.sequence:
                self._answer(guest, ack)

    def take_complete(self, host_id: int, vm_ids: Iterable[int]) -> None:
        """All orders of the host have been sent: what is here and not among them is an orphan, and left alone.

        `vm_ids` are those that the host has to keep; what it was ordered to erase is no orphan either.
        """
        ordered = set(vm_ids)
        self._complete.add(host_id)
        for guest in list(self.guests.by_host.get(host_id, {}).values()):
            if guest.vm_id in ordered or (guest.order is not None and guest.order.is_erase):
                continue
            guest.order = None
            if not guest.is_here and guest.doing in (Doing.NOTHING, Doing.LEAVING):
                self._outbox.forget(guest)
                self.guests.remove(guest)

    def report_all(self, host_ids: Iterable[int]) -> None:
        """A stream has been opened: reports every guest of the hosts, first what was not answered before."""
        for host_id in host_ids:
            self._complete.discard(host_id)
            for guest in self.guests.by_host[host_id].values():
                if guest.in_flight is not None:
                    self._outbox.resend(guest)
                elif guest.status is not None and _is_certain(guest):
                    self._outbox.put(guest, guest.status)

    # From the hypervisor

    def see(self, seen: Seen) -> None:
        """Takes in a guest as it is now: from a look, or read again because of an event.

        One that has changed since that reading began is looked at once more: what was read may be what was before.
        """
        if seen.host_id not in self.guests.by_host:
            return
        guest = self.guests.get(seen.host_id, seen.vm_id)
        if guest is None:
            if seen.power is not Power.ABSENT:
                self._adopt(self.guests.add(seen.host_id, seen.vm_id), seen)
        elif guest.uid and guest.uid != seen.uid:
            self._foreign.setdefault(seen.host_id, {})[seen.vm_id] = seen
        elif seen.began_at is not None and guest.changed > seen.began_at:
            self._life.look_again(guest)
        else:
            self._life.power(guest, seen.power, seen.end)
            if seen.addresses is not None:
                self._life.addresses(guest, seen.addresses)

    @property
    def changes(self) -> int:
        """To be noted before a look and handed to `compare` after it."""
        return self._life.changes

    def compare(self, host_id: int, found: Sequence[Seen], began_at: int) -> None:
        """Takes in all that a look at a host has found; what it has not found is no longer there.

        Guests that have changed since the look began, or are being worked on, are left to the next one.
        """
        self._foreign.pop(host_id, None)
        host = self.guests.by_host[host_id]
        present = {seen.vm_id for seen in found}
        for seen in found:
            guest = host.get(seen.vm_id)
            if guest is None or guest.changed <= began_at:
                self.see(seen)
        self._sighted(host.values(), began_at)
        for guest in list(host.values()):
            if guest.vm_id not in present and guest.power is not Power.ABSENT and guest.changed <= began_at:
                self._life.power(guest, Power.ABSENT, End.VANISHED)

    def _sighted(self, guests: Iterable[Guest], began_at: int) -> None:
        """What was waited for a look for may go on."""
        for guest in list(guests):
            if not guest.sighted and guest.changed <= began_at:
                guest.sighted = True
                if guest.status is not None and guest.status.phase == vm_pb2.VM_PHASE_READY:
                    self._life.decide(guest)

    def orphans(self, host_id: int) -> list[str]:
        """Names of what carries moln's mark and is not ordered here, once all orders are known."""
        if host_id not in self._complete:
            return []
        unordered = [g for g in self.guests.by_host[host_id].values() if g.order is None and g.is_here]
        foreign = self._foreign.get(host_id, {}).values()
        return sorted([f"vm {g.vm_id} ({g.uid})" for g in unordered] + [f"vm {s.vm_id} ({s.uid})" for s in foreign])

    # The agent's end

    async def halt(self) -> int:
        """Shuts every running guest down because the agent ends; returns how many there were. Nothing is reported."""
        self._life.is_halting = True
        active = [guest for guest in self.guests if self._is_to_halt(guest)]
        if not active:
            return 0
        left = len(active)
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def one_less() -> None:
            nonlocal left
            left -= 1
            if not left:
                ended.set_result(None)

        for guest in active:
            self._life.halt(guest, one_less)
        await ended
        return len(active)

    # Parts

    def _is_to_halt(self, guest: Guest) -> bool:
        is_orphan = guest.order is None and guest.host_id in self._complete
        return not is_orphan and (guest.power is Power.RUNNING or guest.doing in DEEDS_UNDER_WAY)

    def _replace(self, guest: Guest, order: VmOrder, now: float) -> None:
        before, guest.order, guest.refused = guest.order, order, None
        if order.HasField("move") or (guest.status is not None and guest.status.phase == vm_pb2.VM_PHASE_READY):
            guest.sighted = False
            self._life.unsure(guest)
        if before is None or before.intent.generation != order.intent.generation or before.is_erase != order.is_erase:
            guest.not_before = 0.0
            guest.ordered_at = now
        is_unknown = (guest.status is None or guest.status.attempt == 0) and guest.doing is Doing.NOTHING
        if is_unknown and order.HasField("status") and order.status.epoch == order.epoch:
            guest.status = order.status
            guest.not_before = order.status.not_before.seconds

    def _answer(self, guest: Guest, ack: ReportAck) -> None:
        report = guest.in_flight
        if report is None:
            return
        is_final = ack.is_stored or report.is_claim or ack.reason in FINAL_REFUSALS
        if not is_final:
            self._timers.after(RETRY_S, lambda: self._outbox.resend(guest))
            return
        self._outbox.answered(guest, ack.sequence)
        if report.is_claim:
            if ack.is_stored:
                self._life.granted(guest)
            else:
                self._life.refused(guest, ack.reason)
        elif report.is_gone:
            self._life.left(guest)

    def _adopt(self, guest: Guest, seen: Seen) -> None:
        """Takes over a guest that this process has not started, with what is remembered of it."""
        guest.power, guest.end = seen.power, seen.end
        status = statuses.remains(self._bases[seen.host_id], seen.uid, seen.epoch)
        if seen.status is not None:
            status.MergeFrom(seen.status)
        if seen.power is Power.RUNNING and status.phase not in _TOLD:
            was = status.phase
            status = statuses.entered(status, vm_pb2.VM_PHASE_RUNNING, status.since)
            if was != vm_pb2.VM_PHASE_STARTING:
                status.ClearField("start_time")
        guest.status = status
        guest.not_before = status.not_before.seconds
        self._log.info("guest adopted", vm_id=seen.vm_id, host_id=seen.host_id, power=seen.power.value)


def _is_certain(guest: Guest) -> bool:
    """Whether what was last reported still holds. What does not is decided when the order comes, which is soon."""
    status = guest.status
    if status is None:
        return False
    if guest.power is Power.RUNNING:
        return status.phase in _RUNS
    return status.phase in _RESTS
