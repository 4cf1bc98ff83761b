"""What administrators do with hosts: create, enable, disable, change, fence, delete."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from moln.compute.v1 import host_pb2, host_service_pb2
from moln.operations.v1 import records_pb2
from services.api.core.templates import check_labels
from services.api.index.cloud import CloudIndex
from services.api.index.hosts import HostRecord
from services.api.usecases.join_tokens import JoinToken, new_join_token
from services.api.usecases.resources import cause_of, check_etag, swap
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError, invalid
from services.common.domain.ids import check_name
from services.common.domain.keys import SCHEMA_VERSION
from services.common.domain.reasons import Reason
from services.common.filters import Vocabulary, parse
from services.common.resources import page_token
from services.common.resources.update_mask import apply_mask
from services.common.store import Conflict, Entry, Store, Txn, key

MAX_BATCH = 1000
DEFAULT_CLUSTER = "default"
_MUTABLE = (
    "labels",
    "taints",
    "cpu_overcommit_percent",
    "memory_overcommit_percent",
    "reserved_memory_mib",
    "settings",
)
M = host_pb2.HostMode


class Hosts:
    """Hosts, as administrators see them."""

    def __init__(self, store: Store, cloud: CloudIndex, node_address: str) -> None:
        self._store = store
        self._cloud = cloud
        self._node_address = node_address
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

    async def create(
        self, requests: Sequence[host_service_pb2.CreateHostRequest], caller: Caller
    ) -> list[host_service_pb2.CreateHostResponse]:
        """Creates hosts, each with a join token. The first that cannot be created raises; those before it stay."""
        if len(requests) > MAX_BATCH:
            raise invalid("requests", f"has {len(requests)} items; at most {MAX_BATCH} go into one batch")
        for request in requests:
            self._check(request)
        ids = await self._store.ids.take("host", len(requests))
        tokens: list[JoinToken] = []
        txns: list[Txn] = []
        for host_id, request in zip(ids, requests, strict=True):
            txn, token = self._creation(host_id, request, caller)
            txns.append(txn)
            tokens.append(token)
        outcomes = await self._store.commit_all(txns)
        for request, outcome in zip(requests, outcomes, strict=True):
            if isinstance(outcome, Conflict):
                raise MolnError(
                    Reason.NAME_TAKEN, f"create host: there is a host {request.name} already; see: moln host list"
                )
            if isinstance(outcome, Exception):
                raise outcome
        return [self._created(host_id, token) for host_id, token in zip(ids, tokens, strict=True)]

    def _check(self, request: host_service_pb2.CreateHostRequest) -> None:
        check_name("name", request.name)
        check_labels(request.labels, "labels")
        if request.name in self._cloud.hosts.by_name:
            raise MolnError(
                Reason.NAME_TAKEN, f"create host: there is a host {request.name} already; see: moln host list"
            )
        self.check_cluster(request.cluster_id)

    def check_cluster(self, cluster_id: int) -> None:
        """Raises NOT_FOUND unless the cluster exists (0, the default one, always does)."""
        if cluster_id and self._cloud.catalog.get("cluster", cluster_id) is None:
            raise MolnError(Reason.CLUSTER_NOT_FOUND, f"there is no cluster {cluster_id}; see: moln cluster list")

    def _creation(
        self, host_id: int, request: host_service_pb2.CreateHostRequest, caller: Caller
    ) -> tuple[Txn, JoinToken]:
        uid = str(uuid.uuid4())
        cause = cause_of(caller, "CREATE")
        spec = host_pb2.HostSpec(
            uid=uid,
            name=request.name,
            cluster_id=request.cluster_id,
            mode=M.HOST_MODE_ENABLED,
            labels=request.labels,
            taints=request.taints,
            settings=request.settings,
            create_time=cause.time,
            cause=cause,
            schema_version=SCHEMA_VERSION,
        )
        token = new_join_token(uid)
        name_key = key("name", "host", f"0/{request.name}")
        txn = Txn()
        txn.absent(name_key)
        txn.put(name_key, records_pb2.NameRecord(id=host_id))
        txn.put(key("host", host_id, "spec"), spec)
        txn.put(key("host", host_id, "secret"), token.secret)
        return txn, token

    def _created(self, host_id: int, token: JoinToken) -> host_service_pb2.CreateHostResponse:
        return host_service_pb2.CreateHostResponse(
            host=self.message(self.existing(host_id)),
            join_token=token.token,
            join_token_expire_time=token.expire_time,
            node_address=self._node_address,
        )

    async def new_token(self, host_id: int) -> host_service_pb2.CreateJoinTokenResponse:
        """A new join token; the node's present secret stays good until the token is used."""
        made: list[JoinToken] = []

        def build() -> Txn:
            record = self.existing(host_id)
            assert record.spec is not None  # noqa: S101  for the type checker: `existing` has looked
            secret = record.secret
            made[:] = [new_join_token(record.spec.value.uid, secret.value.secret_sha256 if secret is not None else b"")]
            txn = Txn()
            if secret is not None:
                txn.unchanged(secret.key, secret.mod_revision)
            txn.put(key("host", host_id, "secret"), made[0].secret)
            return txn

        await swap(self._store, f"make a join token for host {host_id}", build)
        return host_service_pb2.CreateJoinTokenResponse(
            join_token=made[0].token, join_token_expire_time=made[0].expire_time, node_address=self._node_address
        )

    def existing(self, host_id: int) -> HostRecord:
        """The host, or NOT_FOUND/HOST_NOT_FOUND."""
        record = self._cloud.hosts.get(host_id)
        if record is None:
            raise MolnError(Reason.HOST_NOT_FOUND, f"there is no host {host_id}; see: moln host list")
        return record

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
        """Enables or disables. Idempotent."""

        def build() -> Txn | None:
            entry = self._spec(host_id)
            if entry.value.mode == mode:
                return None
            spec = host_pb2.HostSpec()
            spec.CopyFrom(entry.value)
            spec.mode = mode
            return self._changed(host_id, spec, caller, M.Name(mode).removeprefix("HOST_MODE_"))

        await swap(self._store, f"change host {host_id}", build)
        return self.message(self.existing(host_id))

    async def update(self, request: host_service_pb2.UpdateHostRequest, caller: Caller) -> host_pb2.Host:
        """Changes labels, taints, overcommit, reserved memory."""

        def build() -> Txn:
            entry = self._spec(request.id)
            check_etag(request.etag, entry, f"host {request.id}")
            spec = apply_mask(entry.value, request.spec, request.update_mask, _MUTABLE)
            check_labels(spec.labels, "spec.labels")
            return self._changed(request.id, spec, caller, "UPDATE")

        await swap(self._store, f"update host {request.id}", build)
        return self.message(self.existing(request.id))

    async def move(self, host_id: int, cluster_id: int, caller: Caller) -> host_pb2.Host:
        """Puts a host into a cluster. Raises HOST_IN_USE while VMs are placed on it."""
        self.check_cluster(cluster_id)

        def build() -> Txn | None:
            entry = self._spec(host_id)
            if entry.value.cluster_id == cluster_id:
                return None
            self._check_unused(self.existing(host_id), "move host")
            spec = host_pb2.HostSpec()
            spec.CopyFrom(entry.value)
            spec.cluster_id = cluster_id
            return self._changed(host_id, spec, caller, "MOVE")

        await swap(self._store, f"move host {host_id}", build)
        return self.message(self.existing(host_id))

    async def leave(self, host_id: int, cluster_id: int, caller: Caller) -> host_pb2.Host:
        """Puts a host back into the default cluster. One that is not in the cluster named is left where it is."""
        if self._spec(host_id).value.cluster_id != cluster_id:
            return self.message(self.existing(host_id))
        return await self.move(host_id, 0, caller)

    async def fence(self, host_id: int, is_confirmed: bool, caller: Caller) -> host_pb2.Host:
        """Takes the caller's word that nothing runs on a silent host."""
        if not is_confirmed:
            raise invalid("is_confirmed", "must be true: make sure first that the machine is off, else VMs run twice")

        def build() -> Txn | None:
            record = self.existing(host_id)
            liveness = record.liveness
            state = liveness.value.state if liveness is not None else host_pb2.LIVENESS_STATE_UNSPECIFIED
            if liveness is None or state == host_pb2.LIVENESS_STATE_CONNECTED:
                raise MolnError(
                    Reason.STATE_FORBIDS, f"fence host {record.name}: only a silent host can be fenced, and it is not"
                )
            if state == host_pb2.LIVENESS_STATE_FENCED:
                return None
            fenced = host_pb2.HostLiveness()
            fenced.CopyFrom(liveness.value)
            fenced.state = host_pb2.LIVENESS_STATE_FENCED
            fenced.proof = "confirmed"
            fenced.cause.CopyFrom(cause_of(caller, "FENCE"))
            fenced.since.CopyFrom(fenced.cause.time)
            txn = Txn()
            txn.unchanged(liveness.key, liveness.mod_revision)
            txn.absent(key("hostconn", host_id))
            txn.put(liveness.key, fenced)
            return txn

        await swap(self._store, f"fence host {host_id}", build)
        return self.message(self.existing(host_id))

    async def delete(self, host_id: int) -> None:
        """Deletes a host. Raises HOST_IN_USE while VMs are placed on it or have a status there."""

        def build() -> Txn:
            record = self.existing(host_id)
            assert record.spec is not None  # noqa: S101  for the type checker: `existing` has looked
            self._check_unused(record, "delete host")
            txn = Txn()
            txn.unchanged(record.spec.key, record.spec.mod_revision)
            txn.delete_prefix(key("host", host_id) + "/")
            txn.delete(key("hostconn", host_id))
            txn.delete(key("name", "host", f"0/{record.name}"))
            return txn

        await swap(self._store, f"delete host {host_id}", build)

    def _check_unused(self, record: HostRecord, what: str) -> None:
        users = self._cloud.vms.by_host.get(record.id)
        if users:
            ids = ", ".join(str(int(each)) for each in sorted(users)[:10])
            raise MolnError(
                Reason.HOST_IN_USE,
                f"{what} {record.name}: {len(users)} VMs are on it ({ids}{', …' if len(users) > 10 else ''}); "
                "terminate or move them first",
                metadata={"vms": ids},
            )

    def _spec(self, host_id: int) -> Entry:
        entry = self.existing(host_id).spec
        assert entry is not None  # noqa: S101  for the type checker: `existing` has looked
        return entry

    def _changed(self, host_id: int, spec: host_pb2.HostSpec, caller: Caller, verb: str) -> Txn:
        entry = self._spec(host_id)
        spec.cause.CopyFrom(cause_of(caller, verb))
        txn = Txn()
        txn.unchanged(entry.key, entry.mod_revision)
        txn.put(entry.key, spec)
        return txn


def _state_name(record: HostRecord) -> str:
    return host_pb2.HostState.Name(record.state()).removeprefix("HOST_STATE_")
