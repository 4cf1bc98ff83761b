"""The simulated hypervisors as a driver. Deeds that come together are done together, written together, then told.

No task per guest: what takes time stands in the timers' heap.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from pathlib import Path

from moln.compute.v1 import vm_pb2
from moln.compute.v1.host_pb2 import HostInventory
from moln.compute.v1.vm_pb2 import VmStatus
from moln.image.v1.image_pb2 import Datastore
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.hostagent.drivers.ports import (
    CAPABILITIES,
    INTERRUPTED,
    Deed,
    End,
    Load,
    Outcome,
    Power,
    Seen,
    Timing,
    Work,
    WorkKey,
)
from services.hostagent.drivers.sim.acts import Acts
from services.hostagent.drivers.sim.faults import delay_of, fault_of
from services.hostagent.drivers.sim.journal import Journal, SimGuest, State, read_state
from services.hostagent.drivers.sim.knobs import Knobs, for_labels, number
from services.hostagent.drivers.sim.load import SimLoad
from services.hostagent.drivers.stats import Sweep

_NO_LABELS: Mapping[str, str] = {}
CHURN_S = 1.0


class SimDriver:
    """All simulated hosts of a process. `look` and everything else is answered at once, from memory."""

    name = "sim"
    capabilities = CAPABILITIES - {"save_disk"}
    """Its disks hold nothing, and nothing of them can become an image."""
    inside = None
    foreign = None

    def __init__(
        self,
        journal_file: Path,
        host_ids: Iterable[int],
        timers: Timing,
        *,
        now: Callable[[], float],
        knobs: Knobs | None = None,
        size: tuple[int, int, int] = (16, 65536, 1_000_000),
        seed: int | None = None,
    ) -> None:
        self.knobs = knobs or Knobs()
        self._host_ids = frozenset(host_ids)
        self._timers, self._now, self._size = timers, now, size
        self._random = random.Random(seed)
        self._load = SimLoad(size)
        self._heard: Callable[[Seen], None] = lambda _seen: None
        self._state: State = read_state(journal_file)
        self._journal = Journal(journal_file)
        self._journal.compact(self._state, now())
        self._by_host: dict[int, dict[int, SimGuest]] = {host_id: {} for host_id in self._host_ids}
        for guest in self._state.guests.values():
            self._by_host.setdefault(guest.host_id, {})[guest.vm_id] = guest
        self._acts = Acts(self._state, self._by_host, self._journal, self._arrived)
        self._under_way: dict[WorkKey, Work] = {}
        self._due: list[tuple[Work, Outcome | None]] = []
        self._is_ticking = False
        self._boot_new_hosts()
        timers.after(CHURN_S, self._churn)

    def guest_name(self, vm_id: int, uid: str) -> str:
        """Short: it stands in every status."""
        return f"sim-{vm_id}"

    # Power

    def begin(self, work: Work) -> None:
        """Does the deed after the time that knobs and labels say."""
        self._under_way[work.key] = work
        delay = delay_of(work, self._knobs_of(work), self._random)
        if delay > 0:
            self._timers.after(delay, lambda: self._soon(work, None))
        else:
            self._soon(work, None)

    def interrupt(self, host_id: int, vm_id: int, *, is_background: bool = False) -> None:
        """Ends the deed under way at once, undone."""
        work = self._under_way.get((host_id, vm_id, is_background))
        if work is not None and not any(due is work for due, _ in self._due):
            self._soon(work, INTERRUPTED)

    def remember(self, status: VmStatus, vm_id: int) -> None:
        """Keeps what the journal would not tell by itself: of guests that only run, it does."""
        guest = self._state.guests.get((status.host_id, vm_id))
        if guest is None or guest.uid != status.uid or not (guest.remembered or _is_worth_it(status)):
            return
        guest.remembered = status.SerializeToString()
        self._journal.remembers(guest, self._now())
        self._journal.flush()

    # Recovery

    async def look(self, host_id: int) -> Sequence[Seen]:
        """What the simulated hypervisor of the host holds."""
        return [self._seen(guest) for guest in self._by_host.get(host_id, {}).values()]

    def listen(self, heard: Callable[[Seen], None], changes: Callable[[], int] = lambda: 0) -> None:
        """`heard` is told of crashes and shutdowns, not of what vanishes."""
        self._heard = heard

    # Hosts

    def boot_id(self, host_id: int) -> str:
        """Stays until the host is rebooted by the control file."""
        return self._state.boot_ids[host_id]

    async def inventory(self, host_id: int, datastores: Sequence[Datastore]) -> HostInventory:
        """A host of the size that settings say; it sees all datastores."""
        cpus, memory_mib, disk_mib = self._size
        return HostInventory(
            cpus=cpus, memory_mib=memory_mib, disk_mib=disk_mib, driver=self.name, hypervisor="sim",
            hypervisor_version="1", architecture="x86_64", cpu_model="simulated", hostname=f"sim{host_id}",
            capabilities=sorted(self.capabilities), visible_datastore_ids=[store.id for store in datastores],
        )  # fmt: skip

    async def load(self, host_id: int) -> Load:
        """A guess that grows with the running guests."""
        running = sum(guest.is_running for guest in self._by_host.get(host_id, {}).values())
        return Load(cpu_percent=5.0 * running, memory_mib=128 * running)

    async def sweep(self, host_id: int) -> Sweep:
        """Made-up load, the same for a guest at every time."""
        return self._load.sweep(host_id, self._by_host.get(host_id, {}).values(), self._now())

    # Consoles

    async def open_console(self, host_id: int, uid: str) -> EchoConsole:
        """A console that greets and echoes."""
        return EchoConsole(self._find(host_id, uid))

    async def console_log(self, host_id: int, uid: str, max_bytes: int) -> bytes:
        """A short boot log that names uid and attempt."""
        text = _greeting(self._find(host_id, uid))
        return text[-max_bytes:] if max_bytes else text

    # What tests and the control file do to it

    @property
    def guests(self) -> Iterable[SimGuest]:
        """All guests of all hosts."""
        return self._state.guests.values()

    def end(self, host_id: int, vm_id: int, end: End) -> bool:
        """The guest ends by itself in this way; False where it does not run. What vanishes is not told."""
        guest = self._state.guests.get((host_id, vm_id))
        if guest is None or not guest.is_running:
            return False
        guest.is_running, guest.is_saved, guest.end = False, False, end
        self._journal.stops(guest, self._now())
        self._journal.flush()
        if end is not End.VANISHED:
            self._heard(self._seen(guest))
        return True

    def reboot(self, host_id: int) -> None:
        """The host's guests are gone, and its boot id is a new one; the agent finds out by looking."""
        boot_id = str(uuid.UUID(int=self._random.getrandbits(128)))
        self._state.boot_ids[host_id] = boot_id
        for guest in self._by_host.get(host_id, {}).values():
            if guest.is_running:
                guest.is_running, guest.end = False, End.VANISHED
        self._journal.boots(host_id, boot_id, self._now())
        self._journal.flush()

    def close(self) -> None:
        """Ends the simulation; the journal keeps what it held."""
        self._journal.close()

    # Parts

    def _boot_new_hosts(self) -> None:
        for host_id in self._host_ids:
            if host_id not in self._state.boot_ids:
                self._state.boot_ids[host_id] = str(uuid.UUID(int=self._random.getrandbits(128)))
                self._journal.boots(host_id, self._state.boot_ids[host_id], self._now())
        self._journal.flush()

    def _knobs_of(self, work: Work) -> Knobs:
        labels = _labels(work)
        return for_labels(self.knobs, labels) if labels else self.knobs

    def _soon(self, work: Work, outcome: Outcome | None) -> None:
        self._due.append((work, outcome))
        if not self._is_ticking:
            self._is_ticking = True
            asyncio.get_running_loop().call_soon(self._tick)

    def _tick(self) -> None:
        """Does all that is due, writes it with one call, and only then tells of it."""
        self._is_ticking = False
        due, self._due = self._due, []
        now = self._now()
        ended: list[tuple[Work, Outcome]] = []
        for work, outcome in due:
            if self._under_way.get(work.key) is work:
                del self._under_way[work.key]
                ended.append((work, outcome or self._do(work, now)))
        self._journal.flush()
        for work, outcome in ended:
            work.done(work, outcome)

    def _do(self, work: Work, now: float) -> Outcome:
        fault = fault_of(work, self._knobs_of(work), self._random)
        if fault is not None:
            return fault
        outcome = self._acts.do(work, now, ignores_acpi=self._knobs_of(work).ignore_acpi)
        labels = _labels(work)
        guest = self._state.guests.get((work.host_id, work.vm_id))
        if work.deed is Deed.START and outcome.is_done and labels and guest is not None:
            self._end_later(guest, labels)
        return outcome

    def _arrived(self, guest: SimGuest) -> None:
        """A guest has come by a live move within this process: its new host tells of it when the tick is over."""
        asyncio.get_running_loop().call_soon(lambda: self._heard(self._seen(guest)))

    def _end_later(self, guest: SimGuest, labels: Mapping[str, str]) -> None:
        starts, key = guest.starts, (guest.host_id, guest.vm_id)
        for label, end in (("sim.crash_after_s", End.CRASHED), ("sim.shutdown_after_s", End.SHUT_DOWN)):
            if label in labels:
                self._timers.after(number(labels, label, 0), lambda end=end: self._end_if(key, starts, end))  # type: ignore[misc]

    def _end_if(self, key: tuple[int, int], starts: int, end: End) -> None:
        guest = self._state.guests.get(key)
        if guest is not None and guest.starts == starts:
            self.end(*key, end)

    def _churn(self) -> None:
        """Once a second: as many guests crash and vanish as the rates say."""
        rates = (self.knobs.crash_rate_per_min, End.CRASHED), (self.knobs.vanish_rate_per_min, End.VANISHED)
        for rate, end in rates:
            if rate:
                chance = rate * CHURN_S / 60
                for guest in [g for g in self.guests if g.is_running and self._random.random() < chance]:
                    self.end(guest.host_id, guest.vm_id, end)
        self._timers.after(CHURN_S, self._churn)

    def _find(self, host_id: int, uid: str) -> SimGuest:
        for guest in self._by_host.get(host_id, {}).values():
            if guest.uid == uid and guest.is_running:
                return guest
        raise MolnError(Reason.STATE_FORBIDS, "the guest does not run; start it first: moln vm resume")

    def _seen(self, guest: SimGuest) -> Seen:
        power = Power.RUNNING if guest.is_running else Power.SAVED if guest.is_saved else Power.OFF
        status = VmStatus.FromString(guest.remembered) if guest.remembered else None
        if guest.is_running:
            status = self._running(guest, status)
        return Seen(guest.host_id, guest.vm_id, guest.uid, guest.epoch, power, guest.end, status)

    def _running(self, guest: SimGuest, known: VmStatus | None) -> VmStatus:
        """What is known of a guest that runs; what was remembered of an earlier start is brought up to date."""
        if known is not None and (known.epoch, known.attempt) == (guest.epoch, guest.attempt):
            return known
        status = VmStatus(
            uid=guest.uid, host_id=guest.host_id, epoch=guest.epoch, attempt=guest.attempt, driver=self.name,
            phase=vm_pb2.VM_PHASE_RUNNING, observed_generation=guest.generation, schema_version=1,
            boot_id=self._state.boot_ids.get(guest.host_id, ""),
        )  # fmt: skip
        for moment in (status.since, status.start_time):
            moment.FromMilliseconds(int(guest.start_s * 1000))
        if known is not None:
            for name in ("operation", "background", "move"):
                if known.HasField(name):
                    getattr(status, name).CopyFrom(getattr(known, name))
            status.snapshots.extend(known.snapshots)
            status.disk_snapshots.extend(known.disk_snapshots)
        return status


class EchoConsole:
    """A console whose guest says hello and repeats what is typed."""

    def __init__(self, guest: SimGuest) -> None:
        self._lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._lines.put_nowait(_greeting(guest))

    async def output(self) -> AsyncIterator[bytes]:
        """The greeting, then the echo, until it is closed."""
        while (data := await self._lines.get()) is not None:
            yield data

    async def write(self, data: bytes) -> None:
        """Types, and sees it again."""
        self._lines.put_nowait(data.replace(b"\r", b"\r\n"))

    async def close(self) -> None:
        """Ends the output."""
        self._lines.put_nowait(None)


def _greeting(guest: SimGuest) -> bytes:
    return f"simulated guest {guest.uid}, start {guest.attempt} on host {guest.host_id}\r\nlogin: ".encode()


def _labels(work: Work) -> Mapping[str, str]:
    return work.order.spec.template.labels if work.order is not None else _NO_LABELS


def _is_worth_it(status: VmStatus) -> bool:
    """Whether a status says more than that the guest runs, or is off."""
    has_more = status.HasField("operation") or status.HasField("background") or status.HasField("move")
    has_snapshots = bool(status.snapshots or status.disk_snapshots)
    return has_more or has_snapshots or bool(status.saved) or status.phase in _KEPT_PHASES


_KEPT_PHASES = frozenset({vm_pb2.VM_PHASE_SUSPENDED, vm_pb2.VM_PHASE_SAVED})
