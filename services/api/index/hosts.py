"""All hosts as this process sees them: stored parts, capacity given out, and the computed view."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from moln.compute.v1 import host_pb2, vm_pb2
from services.api.core.liveness import is_monitored, suspends_self_fence
from services.common.store import Change, Entry

_BY_MODE = {
    host_pb2.HOST_MODE_DISABLED: host_pb2.HOST_STATE_DISABLED,
    host_pb2.HOST_MODE_DELETED: host_pb2.HOST_STATE_DISABLED,
    host_pb2.HOST_MODE_DRAINING: host_pb2.HOST_STATE_DRAINING,
    host_pb2.HOST_MODE_MAINTENANCE: host_pb2.HOST_STATE_MAINTENANCE,
    host_pb2.HOST_MODE_OFFLINE: host_pb2.HOST_STATE_OFFLINE,
}
_BY_LIVENESS = {
    host_pb2.LIVENESS_STATE_UNSPECIFIED: host_pb2.HOST_STATE_NEW,
    host_pb2.LIVENESS_STATE_SILENT: host_pb2.HOST_STATE_SILENT,
    host_pb2.LIVENESS_STATE_FENCED: host_pb2.HOST_STATE_FENCED,
}
DRAINS = frozenset({host_pb2.HOST_MODE_DRAINING, host_pb2.HOST_MODE_MAINTENANCE})
"""Modes in which VMs are moved away."""


class HostRecord:
    """One host: the entries of its parts and what is given out on it."""

    __slots__ = (
        "connection",
        "cpu_percent",
        "disk_mib",
        "id",
        "inventory",
        "key_id",
        "liveness",
        "memory_mib",
        "operation",
        "revision",
        "secret",
        "spec",
        "vms",
    )

    def __init__(self, key_id: str) -> None:
        self.key_id = key_id
        self.id = int(key_id)
        self.spec: Entry | None = None
        self.secret: Entry | None = None
        self.inventory: Entry | None = None
        self.liveness: Entry | None = None
        self.connection: Entry | None = None
        self.operation: Entry | None = None
        self.vms = 0
        self.cpu_percent = 0
        self.memory_mib = 0
        self.disk_mib = 0
        self.revision = 0

    @property
    def name(self) -> str:
        """Name, or empty when the host is gone."""
        return self.spec.value.name if self.spec is not None else ""

    def liveness_value(self) -> host_pb2.HostLiveness | None:
        """Its liveness, None when it was never heard."""
        return self.liveness.value if self.liveness is not None else None

    def state(self) -> host_pb2.HostState:
        """The state as users see it: not monitored first, then what is not heard, then what the administrator wants."""
        if self.spec is not None and self.spec.value.mode == host_pb2.HOST_MODE_OFFLINE:
            return host_pb2.HOST_STATE_OFFLINE
        heard = self.liveness.value.state if self.liveness is not None else host_pb2.LIVENESS_STATE_UNSPECIFIED
        if heard != host_pb2.LIVENESS_STATE_CONNECTED:
            return _BY_LIVENESS[heard]
        mode = self.spec.value.mode if self.spec is not None else host_pb2.HOST_MODE_DISABLED
        return _BY_MODE.get(mode, host_pb2.HOST_STATE_UP)

    def is_monitored(self) -> bool:
        """Whether its silence is a problem."""
        return self.spec is not None and is_monitored(self.spec.value.mode, self.vms)

    def totals(self) -> tuple[int, int, int]:
        """CPU in percent of a core, memory and disk in MiB that may be given out."""
        if self.spec is None or self.inventory is None:
            return 0, 0, 0
        spec, inventory = self.spec.value, self.inventory.value
        cpu = inventory.cpus * (spec.cpu_overcommit_percent or 100)
        memory = inventory.memory_mib * (spec.memory_overcommit_percent or 100) // 100 - spec.reserved_memory_mib
        return cpu, max(0, memory), inventory.disk_mib

    def message(self, cluster: str) -> host_pb2.Host:
        """The host as clients get it."""
        host = host_pb2.Host(id=self.id)
        if self.spec is not None:
            host.spec.CopyFrom(self.spec.value)
        if self.inventory is not None:
            host.inventory.CopyFrom(self.inventory.value)
        if self.liveness is not None:
            host.liveness.CopyFrom(self.liveness.value)
        if self.operation is not None:
            host.operation.CopyFrom(self.operation.value)
        cpu, memory, disk = self.totals()
        is_draining = host.spec.mode in DRAINS
        host.view.CopyFrom(
            host_pb2.HostView(
                state=self.state(),
                vms=self.vms,
                cpu_percent_total=cpu,
                cpu_percent_used=self.cpu_percent,
                memory_mib_total=memory,
                memory_mib_used=self.memory_mib,
                disk_mib_total=disk,
                disk_mib_used=self.disk_mib,
                cluster=cluster,
                resource_version=self.revision,
                etag=str(self.spec.mod_revision) if self.spec is not None else "",
                since=self._since(host),
                drain_left=self.vms if is_draining else 0,
                drain_total=max(self.vms, host.spec.drain_vms) if is_draining else 0,
            )
        )
        return host

    def _since(self, host: host_pb2.Host) -> Timestamp:
        """Since when its state is what it is: since it is heard or not, or since its mode was set."""
        heard = host.liveness.since if host.HasField("liveness") else host.spec.create_time
        if not host.spec.HasField("mode_time") or self.state() in _BY_LIVENESS.values():
            return heard
        if host.spec.mode == host_pb2.HOST_MODE_OFFLINE:
            return host.spec.mode_time
        return max(heard, host.spec.mode_time, key=Timestamp.ToNanoseconds)


LivenessListener = Callable[[HostRecord, int], None]
HostListener = Callable[[HostRecord, str, Change], None]


class HostIndex:
    """All hosts by id, fed by `apply`, and their names."""

    def __init__(self) -> None:
        self._records: dict[int, HostRecord] = {}
        self._on_liveness: list[LivenessListener] = []
        self._on_change: list[HostListener] = []
        self._on_load: list[Callable[[HostRecord], None]] = []
        self.by_name: dict[str, int] = {}
        self.by_join_token: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._records)

    def get(self, host_id: int) -> HostRecord | None:
        """The host of that id that exists, or None."""
        record = self._records.get(host_id)
        return record if record is not None and record.spec is not None else None

    def name_of(self, host_id: int) -> str:
        """Name of a host, or empty."""
        record = self._records.get(host_id)
        return record.name if record is not None else ""

    def all(self) -> list[HostRecord]:
        """All hosts that exist, by id."""
        return [self._records[key] for key in sorted(self._records) if self._records[key].spec is not None]

    def self_fence_is_suspended(self) -> bool:
        """Whether so many hosts are silent at once that a watchdog is no proof: core/liveness.py."""
        states = [_state(host.liveness) for host in self.all() if host.liveness is not None and host.is_monitored()]
        return suspends_self_fence(states.count(host_pb2.LIVENESS_STATE_SILENT), len(states))

    def on_liveness(self, listener: LivenessListener) -> None:
        """Calls the listener when a host's liveness has changed its state."""
        self._on_liveness.append(listener)

    def on_change(self, listener: HostListener) -> None:
        """Calls the listener with each changed host, part and change."""
        self._on_change.append(listener)

    def on_load(self, listener: Callable[[HostRecord], None]) -> None:
        """Calls the listener with each host on which more or less is given out."""
        self._on_load.append(listener)

    def gone_after(self, revision: int) -> list[int]:
        """Hosts that were deleted after a revision, as far back as this process has run."""
        return [record.id for record in self._records.values() if record.spec is None and record.revision > revision]

    def move(self, old: vm_pb2.VmPlacement | None, new: vm_pb2.VmPlacement | None) -> None:
        """Moves what a placement holds from its old host to its new one."""
        for placement, sign in ((old, -1), (new, 1)):
            if placement is None or not placement.host_id:
                continue
            record = self._at(placement.host_id)
            record.vms += sign
            self._hold(record, placement.granted, sign)
            if placement.HasField("move"):
                self._hold(self._at(placement.move.target_host_id), placement.granted, sign)

    def _hold(self, record: HostRecord, granted: vm_pb2.Granted, sign: int) -> None:
        """While a VM moves its room is held on both hosts."""
        record.cpu_percent += sign * granted.cpu_percent
        record.memory_mib += sign * granted.memory_mib
        record.disk_mib += sign * granted.disk_mib
        for listener in self._on_load:
            listener(record)

    def apply(self, changes: Sequence[Change]) -> None:
        """Takes changes of the kinds `host` and `hostconn`, in the order of revisions."""
        for change in changes:
            record = self._at(int(change.id))
            record.revision = change.revision
            part = change.part if change.kind == "host" else "connection"
            setattr(record, part, change.new)
            if part == "spec":
                self._name(record, change)
            elif part == "secret":
                self._token(record, change)
            for listener in self._on_change:
                listener(record, part, change)
            if part == "liveness" and _state(change.old) != _state(change.new):
                for liveness_listener in self._on_liveness:
                    liveness_listener(record, change.revision)

    def _at(self, host_id: int) -> HostRecord:
        record = self._records.get(host_id)
        if record is None:
            record = self._records[host_id] = HostRecord(f"{host_id:010d}")
        return record

    def _name(self, record: HostRecord, change: Change) -> None:
        if change.old is not None:
            self.by_name.pop(change.old.value.name, None)
        if change.new is not None:
            self.by_name[change.new.value.name] = record.id

    def _token(self, record: HostRecord, change: Change) -> None:
        if change.old is not None:
            self.by_join_token.pop(change.old.value.join_token_sha256, None)
        if change.new is not None and change.new.value.join_token_sha256:
            self.by_join_token[change.new.value.join_token_sha256] = record.id


def _state(entry: Entry | None) -> int:
    return int(entry.value.state) if entry is not None else 0
