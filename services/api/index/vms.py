"""All VMs as this process sees them: stored parts, the computed view, and sets by host and state.

Fed by the watch cache, revision by revision: every transition of a view is seen once and in order. Decides nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from operator import attrgetter

from moln.compute.v1 import vm_pb2
from services.api.core import compose
from services.api.core.view import GONE, View, VmParts, compute_view, to_message
from services.api.index.hosts import HostIndex, HostRecord
from services.common.store import Change, Entry

_SINGLE = ("spec", "intent", "placement", "addresses", "volumes", "secrets")


class VmRecord:
    """One VM: the entries of its parts and what is derived from them."""

    __slots__ = (
        "_listed",
        "_payload_at",
        "addresses",
        "id",
        "intent",
        "key_id",
        "last_name",
        "last_owner_id",
        "placement",
        "revision",
        "secrets",
        "spec",
        "statuses",
        "view",
        "volumes",
    )

    def __init__(self, key_id: str) -> None:
        self.key_id = key_id
        self.id = int(key_id)
        self.spec: Entry | None = None
        self.intent: Entry | None = None
        self.placement: Entry | None = None
        self.addresses: Entry | None = None
        self.volumes: Entry | None = None
        self.secrets: Entry | None = None
        self.statuses: dict[int, Entry] = {}
        self.view: View = GONE
        self.revision = 0
        self.last_name = ""
        self.last_owner_id = 0
        self._listed: bytes | None = None
        self._payload_at = 0

    def put(self, part: str, entry: Entry | None) -> None:
        """Takes one part as it is now; None where it is gone."""
        if part in _SINGLE:
            if part == "spec" and entry is not None:
                self.last_name, self.last_owner_id = entry.value.name, entry.value.owner_id
            setattr(self, part, entry)
        elif entry is None:
            self.statuses.pop(int(part[7:]), None)
        else:
            self.statuses[int(part[7:])] = entry
        self._listed = None

    @property
    def owner_id(self) -> int:
        """Id of the owner; 0 when the VM is gone."""
        entry = self.intent
        return entry.value.owner_id if entry is not None else 0

    @property
    def uid(self) -> str:
        """Unique id; empty when the VM is gone."""
        entry = self.intent
        return entry.value.uid if entry is not None else ""

    @property
    def name(self) -> str:
        """Name; empty when the VM is gone."""
        entry = self.spec
        return entry.value.name if entry is not None else ""

    @property
    def is_imported(self) -> bool:
        """Whether others made its guest."""
        entry = self.spec
        return entry is not None and bool(entry.value.imported_as)

    @property
    def host_id(self) -> int:
        """Host of the placement, or 0."""
        entry = self.placement
        return entry.value.host_id if entry is not None else 0

    @property
    def target_host_id(self) -> int:
        """Host that the VM is on its way to, or 0."""
        entry = self.placement
        return entry.value.move.target_host_id if entry is not None and entry.value.HasField("move") else 0

    def concerns(self, host_id: int) -> bool:
        """Whether the VM is placed on the host, on its way there, or something of it is there."""
        return host_id in (self.host_id, self.target_host_id) or host_id in self.statuses

    @property
    def is_empty(self) -> bool:
        """No part is stored any more."""
        return not self.statuses and all(getattr(self, part) is None for part in _SINGLE)

    def status_entry(self) -> Entry | None:
        """The status of the placement's host and epoch; of a VM that ends, any that is left."""
        placement = self.placement
        if placement is None:
            return next(iter(self.statuses.values()), None)
        entry = self.statuses.get(placement.value.host_id)
        if entry is None or entry.value.epoch != placement.value.epoch:
            return None
        return entry

    def parts(self) -> VmParts:
        """The parts as the view takes them."""
        status = self.status_entry()
        return VmParts(
            self.intent.value if self.intent is not None else None,
            self.placement.value if self.placement is not None else None,
            self.addresses.value if self.addresses is not None else None,
            self.volumes.value if self.volumes is not None else None,
            status.value if status is not None else None,
        )

    def first_ipv4(self) -> str:
        """The first IPv4 address, or empty."""
        if self.addresses is not None:
            for nic in self.addresses.value.nics:
                if nic.ipv4:
                    return str(nic.ipv4)
        return ""

    def serialized(self, hosts: HostIndex) -> bytes:
        """The VM as clients get it (`moln.compute.v1.Vm`), composed once per change."""
        listed = self.listed(hosts)
        return listed[self._payload_at :]

    def listed(self, hosts: HostIndex) -> bytes:
        """The same as an element of field 1 of a list, so that a page is one join of what is there already."""
        if self._listed is None:
            payload = self._compose(hosts)
            self._listed = compose.frame(1, payload)
            self._payload_at = len(self._listed) - len(payload)
        return self._listed

    def forget_bytes(self) -> None:
        """The view has changed without a part having changed (its host fell silent)."""
        self._listed = None

    def _compose(self, hosts: HostIndex) -> bytes:
        pieces = [compose.number(1, self.id), compose.frame(2, self.uid.encode())]
        for field, entry in (
            (3, self.spec),
            (4, self.intent),
            (5, self.placement),
            (6, self.addresses),
            (7, self.volumes),
        ):
            if entry is not None:
                pieces.append(compose.frame(field, entry.raw))
        pieces.append(compose.repeated(8, (self.statuses[host].raw for host in sorted(self.statuses))))
        etag = str(self.spec.mod_revision) if self.spec is not None else ""
        view = to_message(self.view, hosts.name_of(self.view.host_id), self.revision, etag, self.first_ipv4())
        pieces.append(compose.frame(9, view.SerializeToString()))
        return b"".join(pieces)

    def message(self, hosts: HostIndex) -> vm_pb2.Vm:
        """The VM as a message of its own."""
        return vm_pb2.Vm.FromString(self.serialized(hosts))


class Transition:
    """A VM's view went from one to another at a revision."""

    __slots__ = ("after", "before", "entry", "name", "owner_id", "record", "revision")

    def __init__(self, record: VmRecord, before: View, after: View, revision: int, entry: Entry | None) -> None:
        self.record = record
        self.before = before
        self.after = after
        self.revision = revision
        self.entry = entry
        self.name = record.name or record.last_name
        self.owner_id = record.owner_id or record.last_owner_id


ChangeListener = Callable[[VmRecord, set[str]], None]
OperationListener = Callable[[VmRecord, vm_pb2.OperationResult, int], None]
TransitionListener = Callable[[Transition], None]


class VmIndex:
    """All VMs by id, fed by `apply`."""

    def __init__(self, hosts: HostIndex) -> None:
        self._hosts = hosts
        self._records: dict[str, VmRecord] = {}
        self._on_change: list[ChangeListener] = []
        self._on_transition: list[TransitionListener] = []
        self._on_end_of_operation: list[OperationListener] = []
        self.states: Counter[int] = Counter()
        self.by_host: dict[int, set[str]] = {}
        self._living: dict[int, list[VmRecord]] = {}
        self.ending: set[str] = set()
        hosts.on_liveness(self._host_changed)

    def __len__(self) -> int:
        return len(self._records)

    def get(self, vm_id: int) -> VmRecord | None:
        """The VM of that id, if it lives."""
        return self._records.get(f"{vm_id:010d}")

    def by_key(self, key_id: str) -> VmRecord | None:
        """The VM of that zero-padded id, if it lives."""
        return self._records.get(key_id)

    def on_change(self, listener: ChangeListener) -> None:
        """Calls the listener with each changed VM and the names of its changed parts."""
        self._on_change.append(listener)

    def on_transition(self, listener: TransitionListener) -> None:
        """Calls the listener with each transition of a view, in the order of revisions."""
        self._on_transition.append(listener)

    def on_end_of_operation(self, listener: OperationListener) -> None:
        """Calls the listener with each operation that was closed, its result and the revision."""
        self._on_end_of_operation.append(listener)

    def apply(self, changes: Sequence[Change]) -> None:
        """Takes changes of kind `vm`, in the order of revisions."""
        touched: dict[VmRecord, set[str]] = {}
        last: dict[VmRecord, Entry] = {}
        revision = 0
        for change in changes:
            if change.revision != revision and touched:
                self._settle(touched, last, revision)
                touched, last = {}, {}
            revision = change.revision
            record = self._records.get(change.id)
            if record is None:
                record = self._records[change.id] = VmRecord(change.id)
            record.put(change.part, change.new)
            if change.part == "intent" and change.old is not None and change.new is not None:
                self._look_for_ends(record, change)
            self._track_host(record, change)
            touched.setdefault(record, set()).add(change.part)
            if change.new is not None and change.new.value is not None:
                last[record] = change.new
        if touched:
            self._settle(touched, last, revision)

    def _look_for_ends(self, record: VmRecord, change: Change) -> None:
        """Tells of operations whose results are new in the intent."""
        if change.old is None or change.new is None:
            return
        old, new = change.old.value, change.new.value
        for before, after in ((old.last_operation, new.last_operation), (old.last_background, new.last_background)):
            if after.id and after.id != before.id:
                for listener in self._on_end_of_operation:
                    listener(record, after, change.revision)

    def _track_host(self, record: VmRecord, change: Change) -> None:
        """Keeps `by_host`: VMs that are placed on a host, or of which it has a status."""
        if change.part == "placement":
            old = change.old.value if change.old is not None else None
            new = change.new.value if change.new is not None else None
            self._hosts.move(old, new)
            hosts = {each.host_id for each in (old, new) if each is not None and each.host_id}
            hosts |= {each.move.target_host_id for each in (old, new) if each is not None and each.HasField("move")}
        elif change.part.startswith("status/"):
            hosts = {int(change.part[7:])}
        else:
            return
        for host_id in hosts:
            members = self.by_host.setdefault(host_id, set())
            if record.concerns(host_id):
                members.add(record.key_id)
            else:
                members.discard(record.key_id)

    def _settle(self, touched: dict[VmRecord, set[str]], last: dict[VmRecord, Entry], revision: int) -> None:
        for record, parts in touched.items():
            record.revision = revision
            self._review(record, revision, last.get(record))
            for listener in self._on_change:
                listener(record, parts)
            if record.is_empty:
                self._records.pop(record.key_id, None)

    def _review(self, record: VmRecord, revision: int, entry: Entry | None) -> None:
        before = record.view
        host = self._hosts.get(record.host_id)
        liveness = host.liveness_value() if host is not None else None
        after = compute_view(record.parts(), liveness, self._hosts.name_of)
        record.view = after
        if after.state != before.state:
            self._count(record, before, after)
        if after[:3] != before[:3]:
            transition = Transition(record, before, after, revision, entry)
            for listener in self._on_transition:
                listener(transition)

    def _count(self, record: VmRecord, before: View, after: View) -> None:
        if before is GONE or after is GONE:
            self._living.clear()
        if before.state != GONE.state:
            self.states[before.state] -= 1
        if after.state != GONE.state:
            self.states[after.state] += 1
        if after.state == vm_pb2.VM_STATE_TERMINATING:
            self.ending.add(record.key_id)
        else:
            self.ending.discard(record.key_id)

    def _host_changed(self, host: HostRecord, revision: int) -> None:
        """A host fell silent or came back: the views of its VMs change though none of their parts has."""
        for key_id in sorted(self.by_host.get(host.id, ())):
            record = self._records[key_id]
            record.forget_bytes()
            record.revision = revision
            self._review(record, revision, host.liveness)
            for listener in self._on_change:
                listener(record, set())

    def living(self, owner_id: int = 0) -> list[VmRecord]:
        """The VMs of an owner (0: of everyone) that are there, by id. Kept until one comes or goes; read only."""
        found = self._living.get(owner_id)
        if found is None:
            there = (record for record in self._records.values() if record.intent is not None)
            found = sorted(
                (record for record in there if not owner_id or record.owner_id == owner_id), key=attrgetter("id")
            )
            self._living[owner_id] = found
        return found

    def records(self) -> dict[str, VmRecord]:
        """All VMs by zero-padded id; not in order."""
        return self._records
