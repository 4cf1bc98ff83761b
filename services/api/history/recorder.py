"""Transitions of views into events. Fed by the index, in the order of revisions; decides nothing, writes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

from google.protobuf.timestamp_pb2 import Timestamp

from moln.compute.v1 import host_pb2, vm_pb2
from moln.image.v1 import image_pb2
from moln.operations.v1 import operations_service_pb2
from services.api.core.verbs import state_name
from services.api.index.cloud import CloudIndex
from services.api.index.hosts import HostRecord
from services.api.index.vms import Transition, VmRecord
from services.common.store import Change, Entry

Event = operations_service_pb2.Event

_DONE = vm_pb2.VM_STATE_DONE
_LIVING = ("network", "user", "template", "cluster", "datastore")


def now() -> Timestamp:
    """This moment."""
    moment = time.time_ns()
    return Timestamp(seconds=moment // 1_000_000_000, nanos=moment % 1_000_000_000)


class Recorder:
    """Collects events until they are taken."""

    def __init__(self, cloud: CloudIndex, clock: Callable[[], Timestamp] = now) -> None:
        self._cloud = cloud
        self._clock = clock
        self._events: list[Event] = []
        self._host_states: dict[int, str] = {}
        cloud.vms.on_transition(self._vm)
        cloud.vms.on_end_of_operation(self._operation)
        cloud.hosts.on_change(self._host)
        cloud.on_other(self._other)

    def adopt(self) -> None:
        """Takes the present states of hosts as known, so that only changes from here on are events."""
        for host in self._cloud.hosts.all():
            self._host_states[host.id] = _host_state(host)

    def take(self) -> list[Event]:
        """The events since the last call."""
        events, self._events = self._events, []
        return events

    def _vm(self, transition: Transition) -> None:
        record, before, after = transition.record, transition.before, transition.after
        entry = transition.entry
        event = Event(
            revision=transition.revision,
            kind="vm",
            id=record.id,
            name=transition.name,
            to="" if after.state == _DONE else state_name(after.state),
            reason=after.reason,
            message=after.message,
            cause=entry.value.cause if entry is not None and entry.value is not None else None,
            time=self._clock(),
            owner_id=transition.owner_id,
            host_id=after.host_id,
        )
        _add_size(event, record)
        if before.state != _DONE:
            setattr(event, "from", state_name(before.state))
        self._events.append(event)

    def _operation(self, record: VmRecord, result: vm_pb2.OperationResult, revision: int) -> None:
        """An operation was closed: an event of its own kind, of which `from` is what it was and `to` how it ended."""
        event = Event(
            revision=revision,
            kind="operation",
            id=record.id,
            name=result.id,
            to="FAILED" if result.reason else "DONE",
            reason=result.reason,
            message=result.message,
            cause=result.cause,
            time=self._clock(),
            owner_id=record.owner_id,
            host_id=record.host_id,
        )
        setattr(event, "from", vm_pb2.OperationKind.Name(result.kind).removeprefix("OPERATION_KIND_"))
        self._events.append(event)

    def _host(self, record: HostRecord, part: str, change: Change) -> None:
        if part not in ("spec", "liveness"):
            return
        before = self._host_states.get(record.id, "")
        after = _host_state(record) if record.spec is not None else ""
        if before == after:
            return
        self._host_states[record.id] = after
        spec = record.spec or (change.old if part == "spec" else None)
        name = spec.value.name if spec is not None else ""
        self._append(change, "host", record.id, name, before, after, 0)

    def _other(self, change: Change) -> None:
        if change.kind == "image" and change.part == "status":
            before, after = _image_state(change.old), _image_state(change.new)
            if before != after:
                spec = self._cloud.catalog.images.spec(int(change.id))
                name, owner = (spec.value.name, spec.value.owner_id) if spec is not None else ("", 0)
                self._append(change, "image", int(change.id), name, before, after, owner)
        elif change.kind in _LIVING and change.part == "spec" and (change.old is None or change.new is None):
            spec = (change.new or change.old).value  # type: ignore[union-attr]
            states = ("", "CREATED") if change.old is None else ("CREATED", "")
            owner = int(change.id) if change.kind == "user" else getattr(spec, "owner_id", 0)
            self._append(change, change.kind, int(change.id), spec.name, *states, owner)

    def _append(
        self, change: Change, kind: str, object_id: int, name: str, before: str, after: str, owner: int
    ) -> None:
        entry = change.new or change.old
        assert entry is not None  # noqa: S101  for the type checker: a change has one of them
        value = entry.value
        event = Event(
            revision=change.revision,
            kind=kind,
            id=object_id,
            name=name,
            to=after,
            reason=getattr(value, "reason", ""),
            message=getattr(value, "message", ""),
            cause=value.cause,
            time=self._clock(),
            owner_id=owner,
        )
        setattr(event, "from", before)
        self._events.append(event)


def _host_state(record: HostRecord) -> str:
    return host_pb2.HostState.Name(record.state()).removeprefix("HOST_STATE_")


def _image_state(entry: Entry | None) -> str:
    return image_pb2.ImageState.Name(entry.value.state).removeprefix("IMAGE_STATE_") if entry is not None else ""


def _add_size(event: Event, record: VmRecord) -> None:
    """What the VM holds from here on: nothing where it has no host and never had one."""
    entry = record.placement
    if entry is None or not event.to:
        return
    granted = entry.value.granted
    event.cpu_percent = granted.cpu_percent
    event.amounts.vms, event.amounts.vcpus = 1, granted.vcpus
    event.amounts.memory_mib, event.amounts.disk_mib = granted.memory_mib, granted.disk_mib
