"""What administrators do with hosts once they are there: list, enable, disable, change, fence, delete."""

from __future__ import annotations

from moln.compute.v1 import host_pb2, host_service_pb2
from services.api.core.host_operations import check_parameters
from services.api.core.liveness import CONFIRMED
from services.api.index.cloud import CloudIndex
from services.api.index.hosts import DRAINS, HostRecord
from services.api.usecases.host_creation import HostCreation
from services.api.usecases.resources import swap
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError, invalid
from services.common.domain.reasons import Reason
from services.common.domain.words import counted, them
from services.common.exec import ScriptError, ScriptFolder
from services.common.filters import Vocabulary, parse
from services.common.resources import page_token
from services.common.resources.labels import check_labels
from services.common.resources.records import cause_of, check_etag, name_key
from services.common.resources.update_mask import apply_mask
from services.common.store import Entry, Store, Txn, key

MAX_OVERCOMMIT_PERCENT = 10_000
DEFAULT_CLUSTER = "default"
_MUTABLE = (
    "labels",
    "taints",
    "cpu_overcommit_percent",
    "memory_overcommit_percent",
    "reserved_memory_mib",
    "settings",
    "cluster_id",
    "fence_command",
    "power_command",
    "script_parameters",
    "fences_automatically",
)
M = host_pb2.HostMode


class Hosts:
    """Hosts, as administrators see them."""

    def __init__(self, store: Store, cloud: CloudIndex, node_address: str, scripts: ScriptFolder) -> None:
        self._store = store
        self._cloud = cloud
        self._scripts = scripts
        self.creation = HostCreation(store, cloud, node_address, self.message)
        self._vocabulary: Vocabulary[HostRecord] = Vocabulary(
            keys={
                "id": lambda host: host.id,
                "name": lambda host: host.name,
                "state": lambda host: _state_name(host),
                "cluster": lambda host: (self.cluster_name(host), str(host.spec.value.cluster_id) if host.spec else ""),
                "driver": lambda host: host.inventory.value.driver if host.inventory is not None else "",
            },
            words={"state": {each.removeprefix("HOST_STATE_") for each in list(host_pb2.HostState.keys())}},
            labels=lambda host: dict(host.spec.value.labels) if host.spec is not None else {},
        )

    def cluster_name(self, record: HostRecord) -> str:
        """Name of the host's cluster."""
        cluster_id = record.spec.value.cluster_id if record.spec is not None else 0
        entry = self._cloud.catalog.get("cluster", cluster_id) if cluster_id else None
        return entry.value.name if entry is not None else DEFAULT_CLUSTER

    def message(self, record: HostRecord) -> host_pb2.Host:
        """The host as clients get it."""
        return record.message(self.cluster_name(record))

    def list(self, request: host_service_pb2.ListHostsRequest) -> host_service_pb2.ListHostsResponse:
        """A page of hosts by id."""
        wanted = parse(request.filter, self._vocabulary)
        token = page_token.decode(request.page_token, wanted.digest)
        limit = page_token.size(request.page_size)
        revision = self._store.cache.revision
        found = [host for host in self._cloud.hosts.all() if host.key_id > token.last and wanted.matches(host)]
        page = found[:limit]
        is_more = len(found) > limit
        return host_service_pb2.ListHostsResponse(
            hosts=[self.message(host) for host in page],
            next_page_token=page_token.encode(page[-1].key_id, wanted.digest, revision) if is_more else "",
            revision=revision,
        )

    async def set_mode(self, host_id: int, mode: host_pb2.HostMode, caller: Caller) -> host_pb2.Host:
        """Says what is wanted of a host. Idempotent. A drain notes how many VMs there are, for its progress."""

        def build() -> Txn | None:
            entry = self._spec(host_id)
            if entry.value.mode == mode:
                return None
            spec = host_pb2.HostSpec()
            spec.CopyFrom(entry.value)
            spec.mode = mode
            spec.mode_time.GetCurrentTime()
            if mode not in DRAINS:
                spec.drain_vms = 0
            elif entry.value.mode not in DRAINS:
                spec.drain_vms = self.creation.existing(host_id).vms
            return self._changed(host_id, spec, caller, M.Name(mode).removeprefix("HOST_MODE_"))

        await swap(self._store, f"change host {host_id}", build)
        return self.message(self.creation.existing(host_id))

    async def update(self, request: host_service_pb2.UpdateHostRequest, caller: Caller) -> host_pb2.Host:
        """Changes labels, taints, overcommit, reserved memory, settings, cluster, scripts."""

        def build() -> Txn:
            entry = self._spec(request.id)
            check_etag(request.etag, entry, f"host {request.id}")
            spec: host_pb2.HostSpec = apply_mask(entry.value, request.spec, request.update_mask, _MUTABLE)
            _check_spec(spec)
            self._check_scripts(spec, entry.value)
            if spec.cluster_id != entry.value.cluster_id:
                self.creation.check_cluster(spec.cluster_id)
                self._check_unused(self.creation.existing(request.id), "move host")
            return self._changed(request.id, spec, caller, "UPDATE")

        await swap(self._store, f"update host {request.id}", build)
        return self.message(self.creation.existing(request.id))

    async def move(self, host_id: int, cluster_id: int, caller: Caller) -> host_pb2.Host:
        """Puts a host into a cluster. Raises HOST_IN_USE while VMs are placed on it."""
        self.creation.check_cluster(cluster_id)

        def build() -> Txn | None:
            entry = self._spec(host_id)
            if entry.value.cluster_id == cluster_id:
                return None
            self._check_unused(self.creation.existing(host_id), "move host")
            spec = host_pb2.HostSpec()
            spec.CopyFrom(entry.value)
            spec.cluster_id = cluster_id
            return self._changed(host_id, spec, caller, "MOVE")

        await swap(self._store, f"move host {host_id}", build)
        return self.message(self.creation.existing(host_id))

    async def leave(self, host_id: int, cluster_id: int, caller: Caller) -> host_pb2.Host:
        """Puts a host back into the default cluster. One that is not in the cluster named is left where it is."""
        if self._spec(host_id).value.cluster_id != cluster_id:
            return self.message(self.creation.existing(host_id))
        return await self.move(host_id, 0, caller)

    async def confirm_fence(self, host_id: int, caller: Caller) -> host_pb2.Host:
        """Takes the caller's word that nothing runs on a silent host."""

        def build() -> Txn | None:
            record = self.creation.existing(host_id)
            liveness = record.liveness
            if liveness is None or not check_fenceable(record):
                return None
            fenced = host_pb2.HostLiveness()
            fenced.CopyFrom(liveness.value)
            fenced.state = host_pb2.LIVENESS_STATE_FENCED
            fenced.proof = CONFIRMED
            fenced.cause.CopyFrom(cause_of(caller, "FENCE"))
            fenced.since.CopyFrom(fenced.cause.time)
            txn = Txn()
            txn.unchanged(liveness.key, liveness.mod_revision)
            txn.absent(key("hostconn", host_id))
            txn.put(liveness.key, fenced)
            return txn

        await swap(self._store, f"fence host {host_id}", build)
        return self.message(self.creation.existing(host_id))

    async def delete(self, host_id: int, caller: Caller) -> None:
        """Deletes a host. Raises HOST_IN_USE while VMs are placed on it or have a status there.

        It is closed first: a placement that was under way is then either seen here, or refused to the scheduler.
        """
        record = self.creation.existing(host_id)
        self._check_unused(record, "delete host")
        former = self._spec(host_id).value.mode
        await self.set_mode(host_id, M.HOST_MODE_DELETED, caller)

        def build() -> Txn:
            spec = self._spec(host_id)
            self._check_unused(record, "delete host")
            txn = Txn()
            txn.unchanged(spec.key, spec.mod_revision)
            txn.delete_prefix(key("host", host_id) + "/")
            txn.delete(key("hostconn", host_id)).delete(key("hostload", host_id))
            txn.delete(name_key("host", 0, record.name))
            return txn

        try:
            await swap(self._store, f"delete host {host_id}", build)
        except MolnError as err:
            if err.reason == Reason.HOST_IN_USE:
                await self.set_mode(host_id, former, caller)
            raise

    def _check_unused(self, record: HostRecord, what: str) -> None:
        users = self._cloud.vms.by_host.get(record.id)
        if users:
            ids = ", ".join(str(int(each)) for each in sorted(users)[:10])
            raise MolnError(
                Reason.HOST_IN_USE,
                f"{what} {record.name}: it has {counted(len(users), 'VM')} ({ids}{', …' if len(users) > 10 else ''}); "
                f"terminate or move {them(len(users))} first",
                metadata={"vms": ids},
            )

    def _check_scripts(self, spec: host_pb2.HostSpec, former: host_pb2.HostSpec) -> None:
        check_parameters(spec.script_parameters, "spec.script_parameters")
        for name in ("fence_command", "power_command"):
            command = getattr(spec, name)
            if not command or command == getattr(former, name):
                continue
            try:
                self._scripts.find(command)
            except ScriptError as err:
                raise invalid(f"spec.{name}", err.message) from err

    def _spec(self, host_id: int) -> Entry:
        entry = self.creation.existing(host_id).spec
        assert entry is not None  # noqa: S101  for the type checker: `existing` has looked
        return entry

    def _changed(self, host_id: int, spec: host_pb2.HostSpec, caller: Caller, verb: str) -> Txn:
        entry = self._spec(host_id)
        spec.cause.CopyFrom(cause_of(caller, verb))
        txn = Txn()
        txn.unchanged(entry.key, entry.mod_revision)
        txn.put(entry.key, spec)
        return txn


def check_fenceable(record: HostRecord) -> bool:
    """Whether the host is silent; False where it is fenced already. Raises STATE_FORBIDS where it is neither."""
    liveness = record.liveness_value()
    state = liveness.state if liveness is not None else host_pb2.LIVENESS_STATE_UNSPECIFIED
    if state in (host_pb2.LIVENESS_STATE_UNSPECIFIED, host_pb2.LIVENESS_STATE_CONNECTED):
        problem = "only a silent host can be fenced, and it is not"
        raise MolnError(Reason.STATE_FORBIDS, f"fence host {record.name}: {problem}")
    return state == host_pb2.LIVENESS_STATE_SILENT


def _check_spec(spec: host_pb2.HostSpec) -> None:
    check_labels("spec.labels", spec.labels)
    for name in ("cpu_overcommit_percent", "memory_overcommit_percent"):
        if getattr(spec, name) > MAX_OVERCOMMIT_PERCENT:
            raise invalid(f"spec.{name}", f"must be at most {MAX_OVERCOMMIT_PERCENT}; 0 is 100")


def _state_name(record: HostRecord) -> str:
    return host_pb2.HostState.Name(record.state()).removeprefix("HOST_STATE_")
