"""Reports on their way to the gateway: numbered, in order for each VM, coalesced, sent again until they are answered.

At most one report of a VM is on its way at a time, so their order cannot be lost. While it is, the newest of a phase
replaces older ones of the same phase; a change of phase is never left out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from moln.compute.v1.vm_pb2 import VmStatus
from moln.node.v1.node_service_pb2 import VmReport
from services.hostagent.core.guest import Guest


class Outbox:
    """Holds what is to be sent; the reports themselves are kept with their guests."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._unsent: deque[Guest] = deque()
        self._sequence = 0
        self.is_open = False
        """Whether there is a stream; while there is none, reports only gather."""

    def put(self, guest: Guest, status: VmStatus, *, is_claim: bool = False, is_gone: bool = False) -> None:
        """Sends a copy of `status`, as soon as what is on its way for the same guest has been answered."""
        self._sequence += 1
        report = VmReport(vm_id=guest.vm_id, sequence=self._sequence, is_claim=is_claim, is_gone=is_gone, status=status)
        if guest.in_flight is None:
            guest.in_flight = report
            self._send(guest)
        elif guest.queued and _may_replace(guest.queued[-1], report):
            guest.queued[-1] = report
        else:
            guest.queued.append(report)

    def answered(self, guest: Guest, sequence: int) -> VmReport | None:
        """The report that the number names is off the way; it is returned, or None where the number is an old one."""
        report = guest.in_flight
        if report is None or report.sequence != sequence:
            return None
        guest.in_flight = None
        if guest.queued:
            guest.in_flight = guest.queued.pop(0)
            self._send(guest)
        return report

    def resend(self, guest: Guest) -> None:
        """Sends once more what is on its way for the guest; nothing on its way: no effect."""
        if guest.in_flight is not None:
            self._send(guest)

    def forget(self, guest: Guest) -> None:
        """Drops all reports of the guest."""
        guest.in_flight = None
        guest.queued.clear()

    def open(self) -> None:
        """A stream is there. What was on its way must be resent by the caller: it knows the guests."""
        self._unsent.clear()
        self.is_open = True

    def close(self) -> None:
        """The stream is gone."""
        self._unsent.clear()
        self.is_open = False

    def take(self, limit: int) -> list[VmReport]:
        """The next reports to send, at most `limit`."""
        unsent = self._unsent
        reports: list[VmReport] = []
        while unsent and len(reports) < limit:
            report = unsent.popleft().in_flight
            if report is not None:
                reports.append(report)
        return reports

    def _send(self, guest: Guest) -> None:
        if self.is_open:
            self._unsent.append(guest)
            self._wake()


def _may_replace(older: VmReport, newer: VmReport) -> bool:
    is_plain = not (older.is_claim or newer.is_claim or older.is_gone or newer.is_gone)
    return is_plain and older.status.phase == newer.status.phase
