"""What each deed does to the simulated hypervisors. Each is idempotent; each change is written down at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from moln.compute.v1 import vm_pb2
from moln.compute.v1.vm_pb2 import DiskSnapshot, SavedFile, Snapshot, VmSize, VmStatus
from services.common.domain.reasons import Reason
from services.hostagent.drivers.ports import DONE, Deed, End, Outcome, Work
from services.hostagent.drivers.sim.journal import Journal, SimGuest, State

ByHost = dict[int, dict[int, SimGuest]]
SIMULATED = "simulated"
"""Stands where a file's checksum would be: there are no files."""


class Acts:
    """Does deeds on `state`. `arrived` hears of a guest that has come by a live move from another host of ours."""

    def __init__(self, state: State, by_host: ByHost, journal: Journal, arrived: Callable[[SimGuest], None]) -> None:
        self._state, self._by_host, self._journal, self._arrived = state, by_host, journal, arrived
        self._deeds: Mapping[Deed, Callable[[Work, SimGuest, float], Outcome]] = {
            Deed.PLUG: self._plug,
            Deed.SUSPEND: self._suspend,
            Deed.UPLOAD: self._name_files,
            Deed.HAND_OVER: self._name_files,
            Deed.MIGRATE: self._migrate,
            Deed.OPERATE: self._operate,
            Deed.ERASE: self._erase,
        }

    def do(self, work: Work, now: float, *, ignores_acpi: bool) -> Outcome:
        """The deed's effect, and its outcome."""
        match work.deed:
            case Deed.START:
                return self._start(work, now)
            case Deed.RECEIVE | Deed.FETCH:
                return self._receive(work, now)
            case _:
                return self._on_guest(work, now, ignores_acpi=ignores_acpi)

    def _on_guest(self, work: Work, now: float, *, ignores_acpi: bool) -> Outcome:
        guest = self._state.guests.get((work.host_id, work.vm_id))
        if guest is None or guest.uid != work.uid:
            return DONE if work.deed not in (Deed.OPERATE, Deed.MIGRATE) else _gone()
        if work.deed in (Deed.SHUT_DOWN, Deed.HALT):
            return self._shut_down(work, guest, now, ignores_acpi)
        return self._deeds[work.deed](work, guest, now)

    def _guest(self, work: Work) -> SimGuest:
        key = work.host_id, work.vm_id
        guest = self._state.guests.get(key)
        if guest is None:
            guest = self._state.guests[key] = SimGuest(work.host_id, work.vm_id, work.uid)
            self._by_host[work.host_id][work.vm_id] = guest
        return guest

    # Power

    def _start(self, work: Work, now: float) -> Outcome:
        guest = self._guest(work)
        if not guest.is_running:  # otherwise it was started before the agent was killed
            guest.epoch, guest.attempt = work.status.epoch, work.status.attempt
            guest.generation = work.order.intent.generation if work.order is not None else 0
            self._run(guest, now)
        return Outcome(True, facts=VmStatus(size=_size(work)), cleared=("saved", "needs_restart", "restart_fields"))

    def _run(self, guest: SimGuest, now: float) -> None:
        guest.is_running, guest.is_saved, guest.end, guest.start_s = True, False, End.NONE, now
        guest.starts += 1
        self._journal.runs(guest)

    def _shut_down(self, work: Work, guest: SimGuest, now: float, ignores_acpi: bool) -> Outcome:
        if not guest.is_running:
            return DONE
        self._stop(guest, End.BY_AGENT if work.deed is Deed.HALT else End.NONE, now)
        if ignores_acpi:
            return Outcome(True, Reason.PLUG_PULLED, f"the guest did not shut down within {work.grace_s:g} s")
        return DONE

    def _plug(self, _work: Work, guest: SimGuest, now: float) -> Outcome:
        if guest.is_running or guest.is_saved:
            self._stop(guest, End.NONE, now)
        return DONE

    def _stop(self, guest: SimGuest, end: End, now: float) -> None:
        guest.is_running, guest.is_saved, guest.end = False, False, end
        self._journal.stops(guest, now)

    def _suspend(self, _work: Work, guest: SimGuest, now: float) -> Outcome:
        if guest.is_running:
            guest.is_running, guest.is_saved, guest.end = False, True, End.NONE
            self._journal.saves(guest, now)
        return DONE if guest.is_saved else Outcome(False, Reason.SAVE_FAILED, "the guest does not run", "suspend")

    def _erase(self, _work: Work, guest: SimGuest, now: float) -> Outcome:
        del self._state.guests[guest.host_id, guest.vm_id]
        self._by_host[guest.host_id].pop(guest.vm_id, None)
        self._journal.erases(guest, now)
        return DONE

    # Moves

    def _name_files(self, work: Work, guest: SimGuest, _now: float) -> Outcome:
        if guest.is_running:
            return Outcome(False, Reason.STATE_FORBIDS, "the guest runs", work.deed.value)
        disks = work.order.spec.template.disks if work.order is not None else ()
        files = [SavedFile(disk_id=disk.disk_id, sha256=SIMULATED, format=disk.format) for disk in disks]
        if guest.is_saved:
            files.append(SavedFile(is_memory=True, sha256=SIMULATED, format="memory"))
        return Outcome(True, facts=VmStatus(saved=files), cleared=("saved",))

    def _receive(self, work: Work, now: float) -> Outcome:
        guest = self._guest(work)
        if guest.epoch != work.status.epoch:
            guest.epoch = work.status.epoch
            self._journal.places(guest, now)
        saved = work.order.move.peer_status.saved if work.order is not None and work.deed is Deed.FETCH else ()
        if any(each.is_memory for each in saved) and not guest.is_saved:
            guest.is_saved = True
            self._journal.saves(guest, now)
        return DONE

    def _migrate(self, work: Work, guest: SimGuest, now: float) -> Outcome:
        if not guest.is_running:
            if guest.end is End.NONE:
                return DONE  # it was handed over before the agent was killed
            return Outcome(False, Reason.MIGRATION_FAILED, "the guest ended before it was handed over", "migrate")
        self._stop(guest, End.NONE, now)
        order = work.order
        target = self._state.guests.get((order.move.peer_host_id, work.vm_id)) if order is not None else None
        if order is not None and target is not None and target.uid == work.uid:
            target.epoch, target.attempt = order.move.move.epoch, 0
            target.generation = order.intent.generation
            self._run(target, now)
            self._arrived(target)
        return DONE

    # Operations

    def _operate(self, work: Work, guest: SimGuest, now: float) -> Outcome:
        operation = work.operation
        if operation is None:
            return Outcome(False, Reason.INTERNAL, "an operation was asked for without one", "operate")
        if operation.kind == vm_pb2.OPERATION_KIND_SAVE_DISK:
            return Outcome(False, Reason.CAPABILITY, "disks of simulated guests hold nothing to save", "operate")
        facts = _FACTS.get(operation.kind, _no_facts)(work)
        if isinstance(facts, VmStatus):
            for snapshot in facts.snapshots:
                if not snapshot.HasField("time"):
                    snapshot.time.FromMilliseconds(int(now * 1000))
                    snapshot.has_memory = guest.is_running
            for of_disk in facts.disk_snapshots:
                if not of_disk.HasField("time"):
                    of_disk.time.FromMilliseconds(int(now * 1000))
        if isinstance(facts, Outcome):
            return facts
        if operation.id not in guest.operations:
            guest.operations.add(operation.id)
            kind = vm_pb2.OperationKind.Name(operation.kind).removeprefix("OPERATION_KIND_").lower()
            self._journal.operates(guest, kind, operation.id, now)
        return Outcome(True, facts=facts, cleared=_CLEARED.get(operation.kind, ()))


def _gone() -> Outcome:
    return Outcome(False, Reason.GUEST_VANISHED, "the guest is not there any more", "look")


def _size(work: Work) -> VmSize:
    order = work.order
    if order is None:
        return VmSize()
    granted = order.placement.granted
    return VmSize(vcpus=granted.vcpus, cpu_percent=granted.cpu_percent, memory_mib=granted.memory_mib)


def _no_facts(_work: Work) -> VmStatus | Outcome | None:
    return None


def _resized(work: Work) -> VmStatus | Outcome | None:
    return VmStatus(size=_size(work))


def _snapshots(work: Work) -> tuple[list[Snapshot], str]:
    name = work.operation.parameters.snapshot if work.operation is not None else ""
    return [Snapshot.FromString(each.SerializeToString()) for each in work.status.snapshots], name


def _snapshot_made(work: Work) -> VmStatus | Outcome | None:
    there, name = _snapshots(work)
    if all(each.name != name for each in there):
        parent = next((each.name for each in there if each.is_current), "")
        there.append(Snapshot(name=name, parent=parent))
    return VmStatus(snapshots=_current(there, name))


def _snapshot_reverted(work: Work) -> VmStatus | Outcome | None:
    there, name = _snapshots(work)
    if all(each.name != name for each in there):
        return Outcome(False, Reason.SNAPSHOT_NOT_FOUND, f"there is no snapshot {name}", "revert")
    return VmStatus(snapshots=_current(there, name))


def _snapshot_deleted(work: Work) -> VmStatus | Outcome | None:
    there, name = _snapshots(work)
    return VmStatus(snapshots=[each for each in there if each.name != name])


def _disk_snapshots(work: Work) -> tuple[list[DiskSnapshot], int, str]:
    asked = work.operation.parameters if work.operation is not None else vm_pb2.OperationParameters()
    there = [DiskSnapshot.FromString(each.SerializeToString()) for each in work.status.disk_snapshots]
    return there, asked.disk_id, asked.snapshot


def _disk_snapshot_made(work: Work) -> VmStatus | Outcome | None:
    there, disk_id, name = _disk_snapshots(work)
    if all((each.disk_id, each.name) != (disk_id, name) for each in there):
        there.append(DiskSnapshot(disk_id=disk_id, name=name))
    return VmStatus(disk_snapshots=there)


def _disk_snapshot_reverted(work: Work) -> VmStatus | Outcome | None:
    there, disk_id, name = _disk_snapshots(work)
    if all((each.disk_id, each.name) != (disk_id, name) for each in there):
        return Outcome(False, Reason.SNAPSHOT_NOT_FOUND, f"disk {disk_id} has no snapshot {name}", "revert")
    return VmStatus(disk_snapshots=there)


def _disk_snapshot_deleted(work: Work) -> VmStatus | Outcome | None:
    there, disk_id, name = _disk_snapshots(work)
    return VmStatus(disk_snapshots=[each for each in there if (each.disk_id, each.name) != (disk_id, name)])


def _disk_gone(work: Work) -> VmStatus | Outcome | None:
    there, disk_id, _name = _disk_snapshots(work)
    return VmStatus(disk_snapshots=[each for each in there if each.disk_id != disk_id])


def _current(snapshots: list[Snapshot], name: str) -> list[Snapshot]:
    for each in snapshots:
        each.is_current = each.name == name
    return snapshots


_FACTS: Mapping[int, Callable[[Work], VmStatus | Outcome | None]] = {
    vm_pb2.OPERATION_KIND_RESIZE: _resized,
    vm_pb2.OPERATION_KIND_CREATE_SNAPSHOT: _snapshot_made,
    vm_pb2.OPERATION_KIND_REVERT_SNAPSHOT: _snapshot_reverted,
    vm_pb2.OPERATION_KIND_DELETE_SNAPSHOT: _snapshot_deleted,
    vm_pb2.OPERATION_KIND_CREATE_DISK_SNAPSHOT: _disk_snapshot_made,
    vm_pb2.OPERATION_KIND_REVERT_DISK_SNAPSHOT: _disk_snapshot_reverted,
    vm_pb2.OPERATION_KIND_DELETE_DISK_SNAPSHOT: _disk_snapshot_deleted,
    vm_pb2.OPERATION_KIND_DETACH_DISK: _disk_gone,
}
_CLEARED: Mapping[int, tuple[str, ...]] = {
    kind: ("snapshots",) if function in (_snapshot_made, _snapshot_reverted, _snapshot_deleted) else ("disk_snapshots",)
    for kind, function in _FACTS.items()
    if function is not _resized
}
"""What the facts replace, also where they are empty."""
