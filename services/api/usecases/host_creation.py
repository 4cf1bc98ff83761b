"""Creation of hosts, one or a thousand, and the one-time tokens with which their agents join."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence

from moln.compute.v1 import host_pb2, host_service_pb2
from services.api.index.cloud import CloudIndex
from services.api.index.hosts import HostRecord
from services.api.usecases.join_tokens import JoinToken, new_join_token
from services.api.usecases.resources import catch_up, swap
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError, invalid
from services.common.domain.ids import check_name
from services.common.domain.keys import SCHEMA_VERSION
from services.common.domain.reasons import Reason
from services.common.resources.labels import check_labels
from services.common.resources.records import Repeatable, cause_of, claim_name
from services.common.store import Conflict, Store, Txn, key

MAX_BATCH = 1000
Create = host_service_pb2.CreateHostRequest


class HostCreation:
    """Makes hosts and tokens. `message` says how a host is shown."""

    def __init__(
        self, store: Store, cloud: CloudIndex, node_address: str, message: Callable[[HostRecord], host_pb2.Host]
    ) -> None:
        self._store = store
        self._cloud = cloud
        self._node_address = node_address
        self._message = message

    async def create(self, requests: Sequence[Create], caller: Caller) -> list[host_service_pb2.CreateHostResponse]:
        """Creates hosts, each with a join token. The first that cannot be created raises; the others stay created.

        A request that was made before answers its host, with a new token.
        """
        if len(requests) > MAX_BATCH:
            raise invalid("requests", f"has {len(requests)} items; at most {MAX_BATCH} go into one batch")
        repeatables = [Repeatable(self._store, caller, "host", each.request_id, each) for each in requests]
        former = [await each.first_result() for each in repeatables]
        self._check([request for request, known in zip(requests, former, strict=True) if known is None])
        ids = iter(await self._store.ids.take("host", former.count(None)))
        host_ids = [next(ids) if known is None else known for known in former]
        made: dict[int, JoinToken] = {}
        txns: list[Txn] = []
        for host_id, known, request, repeatable in zip(host_ids, former, requests, repeatables, strict=True):
            if known is None:
                txn, made[host_id] = self._creation(host_id, request, caller)
                await repeatable.note(txn, host_id)
                txns.append(txn)
        await self._commit(txns, [request for request, known in zip(requests, former, strict=True) if known is None])
        return [self._answer(host_id, made.get(host_id) or await self._renew(host_id)) for host_id in host_ids]

    async def new_token(self, host_id: int) -> host_service_pb2.CreateJoinTokenResponse:
        """A new join token; the node's present secret stays good until the token is used."""
        token = await self._renew(host_id)
        return host_service_pb2.CreateJoinTokenResponse(
            join_token=token.token, join_token_expire_time=token.expire_time, node_address=self._node_address
        )

    def check_cluster(self, cluster_id: int) -> None:
        """Raises NOT_FOUND unless the cluster exists (0, the default one, always does)."""
        if cluster_id and self._cloud.catalog.get("cluster", cluster_id) is None:
            raise MolnError(Reason.CLUSTER_NOT_FOUND, f"there is no cluster {cluster_id}; see: moln cluster list")

    def existing(self, host_id: int) -> HostRecord:
        """The host, or NOT_FOUND/HOST_NOT_FOUND."""
        record = self._cloud.hosts.get(host_id)
        if record is None:
            raise MolnError(Reason.HOST_NOT_FOUND, f"there is no host {host_id}; see: moln host list")
        return record

    def _check(self, requests: Sequence[Create]) -> None:
        names: set[str] = set()
        for request in requests:
            check_name("name", request.name)
            check_labels("labels", request.labels)
            self.check_cluster(request.cluster_id)
            if request.name in self._cloud.hosts.by_name or request.name in names:
                raise _taken(request)
            names.add(request.name)

    def _creation(self, host_id: int, request: Create, caller: Caller) -> tuple[Txn, JoinToken]:
        cause = cause_of(caller, "CREATE")
        spec = host_pb2.HostSpec(
            uid=str(uuid.uuid4()),
            name=request.name,
            cluster_id=request.cluster_id,
            mode=host_pb2.HOST_MODE_ENABLED,
            labels=request.labels,
            taints=request.taints,
            settings=request.settings,
            create_time=cause.time,
            cause=cause,
            schema_version=SCHEMA_VERSION,
        )
        token = new_join_token(spec.uid)
        txn = Txn()
        claim_name(txn, "host", 0, request.name, host_id)
        if request.cluster_id:
            txn.present(key("cluster", request.cluster_id, "spec"))
        txn.put(key("host", host_id, "spec"), spec)
        txn.put(key("host", host_id, "secret"), token.secret)
        return txn, token

    async def _commit(self, txns: Sequence[Txn], requests: Sequence[Create]) -> None:
        outcomes = await self._store.commit_all(txns)
        for request, outcome in zip(requests, outcomes, strict=True):
            if isinstance(outcome, Conflict):
                await catch_up(self._store)
                self._check([request])
                problem = f"{outcome.key} was changed at the same time; try again"
                raise MolnError(Reason.CONFLICT, f"create host {request.name}: {problem}") from outcome
            if isinstance(outcome, Exception):
                raise outcome

    def _answer(self, host_id: int, token: JoinToken) -> host_service_pb2.CreateHostResponse:
        return host_service_pb2.CreateHostResponse(
            host=self._message(self.existing(host_id)),
            join_token=token.token,
            join_token_expire_time=token.expire_time,
            node_address=self._node_address,
        )

    async def _renew(self, host_id: int) -> JoinToken:
        made: list[JoinToken] = []

        def build() -> Txn:
            record = self.existing(host_id)
            assert record.spec is not None  # noqa: S101  for the type checker: `existing` has looked
            secret = record.secret
            made[:] = [new_join_token(record.spec.value.uid, secret.value.secret_sha256 if secret is not None else b"")]
            secret_key = key("host", host_id, "secret")
            txn = Txn()
            txn.present(record.spec.key)
            txn.unchanged(secret_key, secret.mod_revision if secret is not None else 0)
            return txn.put(secret_key, made[0].secret)

        await swap(self._store, f"make a join token for host {host_id}", build)
        return made[0]


def _taken(request: Create) -> MolnError:
    problem = f"there is a host {request.name} already; see: moln host list"
    return MolnError(Reason.NAME_TAKEN, f"create host: {problem}", fields=[("name", problem)])
