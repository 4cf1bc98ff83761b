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
from services.hostagent.drivers.ports import DONE, INTERRUPTED, Deed, End, Load, Outcome, Power, Seen, Timing, Work
from services.hostagent.drivers.sim.journal import Journal, SimGuest, State, read_state
from services.hostagent.drivers.sim.knobs import Knobs, for_labels, number
from services.hostagent.drivers.sim.load import SimLoad
from services.hostagent.drivers.stats import Sweep

_NO_LABELS: Mapping[str, str] = {}
CHURN_S = 1.0


class SimDriver:
    """All simulated hosts of a process. `look` and everything else is answered at once, from memory."""

    name = "sim"
    capabilities = frozenset({"power", "console", "console_log"})

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
        self._under_way: dict[tuple[int, int], Work] = {}
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
        self._under_way[work.host_id, work.vm_id] = work
        delay = self._delay(work)
        if delay > 0:
            self._timers.after(delay, lambda: self._soon(work, None))
        else:
            self._soon(work, None)

    def interrupt(self, host_id: int, vm_id: int) -> None:
        """Ends the deed under way at once, undone."""
        work = self._under_way.get((host_id, vm_id))
        if work is not None and not any(due is work for due, _ in self._due):
            self._soon(work, INTERRUPTED)

    def remember(self, status: VmStatus, vm_id: int) -> None:
        """Nothing to do: the journal holds what a restart needs."""

    # Recovery

    async def look(self, host_id: int) -> Sequence[Seen]:
        """What the simulated hypervisor of the host holds."""
        return [self._seen(guest) for guest in self._by_host.get(host_id, {}).values()]

    def listen(self, heard: Callable[[Seen], None]) -> None:
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
        guest.is_running, guest.end = False, end
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

    def _delay(self, work: Work) -> float:
        knobs = self._knobs_of(work)
        if work.deed is Deed.START:
            delay = knobs.start_latency_s
            if knobs.start_jitter_s:
                delay += self._random.uniform(0, knobs.start_jitter_s)
            if knobs.start_stall_rate and self._random.random() < knobs.start_stall_rate:
                delay += knobs.stall_s
            return delay
        if work.deed in (Deed.SHUT_DOWN, Deed.HALT):
            return work.grace_s if knobs.ignore_acpi else min(knobs.stop_latency_s, work.grace_s)
        return 0.0

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
            key = work.host_id, work.vm_id
            if self._under_way.get(key) is work:
                del self._under_way[key]
                ended.append((work, outcome or self._do(work, now)))
        self._journal.flush()
        for work, outcome in ended:
            work.done(work, outcome)

    def _do(self, work: Work, now: float) -> Outcome:
        if work.deed is Deed.START:
            return self._start(work, now)
        guest = self._state.guests.get((work.host_id, work.vm_id))
        if guest is None or guest.uid != work.uid:
            return DONE
        if work.deed is Deed.ERASE:
            self._erase(guest, now)
            return DONE
        return self._stop(guest, work, now)

    def _start(self, work: Work, now: float) -> Outcome:
        labels = _labels(work)
        fails = self.knobs.start_failure_rate and self._random.random() < self.knobs.start_failure_rate
        if fails or (labels and work.status.attempt <= number(labels, "sim.fail_starts", 0)):
            return Outcome(False, Reason.START_FAILED, "the simulator was told to fail this start", step="start")
        key = work.host_id, work.vm_id
        guest = self._state.guests.get(key)
        if guest is None:
            guest = self._state.guests[key] = SimGuest(work.host_id, work.vm_id, work.uid)
            self._by_host[work.host_id][work.vm_id] = guest
        self._run(guest, work, now)
        if labels:
            self._end_later(guest, labels)
        return DONE

    def _run(self, guest: SimGuest, work: Work, now: float) -> None:
        if guest.is_running:
            return  # it was started before the agent was killed
        guest.epoch, guest.attempt = work.status.epoch, work.status.attempt
        guest.generation = work.order.intent.generation if work.order is not None else 0
        guest.is_running, guest.end, guest.start_s = True, End.NONE, now
        guest.starts += 1
        self._journal.runs(guest)

    def _stop(self, guest: SimGuest, work: Work, now: float) -> Outcome:
        if not guest.is_running:
            return DONE
        guest.is_running, guest.end = False, End.BY_AGENT if work.deed is Deed.HALT else End.NONE
        self._journal.stops(guest, now)
        if work.deed is not Deed.PLUG and self._knobs_of(work).ignore_acpi:
            return Outcome(True, Reason.PLUG_PULLED, f"the guest did not shut down within {work.grace_s:g} s")
        return DONE

    def _erase(self, guest: SimGuest, now: float) -> None:
        del self._state.guests[guest.host_id, guest.vm_id]
        self._by_host[guest.host_id].pop(guest.vm_id, None)
        self._journal.erases(guest, now)

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
        power = Power.RUNNING if guest.is_running else Power.OFF
        status = self._remembered(guest) if guest.is_running else None
        return Seen(guest.host_id, guest.vm_id, guest.uid, guest.epoch, power, guest.end, status)

    def _remembered(self, guest: SimGuest) -> VmStatus:
        status = VmStatus(
            uid=guest.uid, host_id=guest.host_id, epoch=guest.epoch, attempt=guest.attempt, driver=self.name,
            phase=vm_pb2.VM_PHASE_RUNNING, observed_generation=guest.generation, schema_version=1,
            boot_id=self._state.boot_ids.get(guest.host_id, ""),
        )  # fmt: skip
        for moment in (status.since, status.start_time):
            moment.FromMilliseconds(int(guest.start_s * 1000))
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
