"""Clusters: named parts of the hosts. Cluster 0, `default`, is always there."""

from __future__ import annotations

import uuid

from moln.compute.v1 import cluster_pb2, cluster_service_pb2
from services.api.core.policy_checks import check_policies_of_cluster
from services.api.index.cloud import CloudIndex
from services.api.usecases.hosts import DEFAULT_CLUSTER
from services.api.usecases.resources import create_once, swap
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError
from services.common.domain.ids import check_name
from services.common.domain.keys import SCHEMA_VERSION
from services.common.domain.reasons import Reason
from services.common.domain.words import counted, them
from services.common.resources import page_token
from services.common.resources.labels import check_labels
from services.common.resources.records import Repeatable, cause_of, check_etag, claim_name, name_key
from services.common.resources.update_mask import apply_mask
from services.common.store import Store, Txn, key

_MUTABLE = ("labels", "policies")


class Clusters:
    """Clusters, as administrators change them and everyone sees them."""

    def __init__(self, store: Store, cloud: CloudIndex) -> None:
        self._store = store
        self._cloud = cloud

    async def create(self, request: cluster_service_pb2.CreateClusterRequest, caller: Caller) -> cluster_pb2.Cluster:
        """Creates an empty cluster."""
        check_name("name", request.name)
        check_labels("labels", request.labels)
        check_policies_of_cluster(request.policies, "policies")
        taken = MolnError(Reason.NAME_TAKEN, f"create cluster: there is a cluster {request.name} already")
        if request.name == DEFAULT_CLUSTER:
            raise taken
        repeatable = Repeatable(self._store, caller, "cluster", request.request_id, request)
        cause = cause_of(caller, "CREATE")

        def build(cluster_id: int) -> Txn:
            spec = cluster_pb2.ClusterSpec(
                uid=str(uuid.uuid4()),
                name=request.name,
                create_time=cause.time,
                cause=cause,
                schema_version=SCHEMA_VERSION,
                labels=request.labels,
                policies=request.policies,
            )
            txn = Txn()
            claim_name(txn, "cluster", 0, request.name, cluster_id)
            return txn.put(key("cluster", cluster_id, "spec"), spec)

        cluster_id, _ = await create_once(self._store, "cluster", repeatable, taken, build)
        return self.get(cluster_id)

    def get(self, cluster_id: int) -> cluster_pb2.Cluster:
        """One cluster. Raises NOT_FOUND."""
        view = cluster_pb2.ClusterView()
        for host in self._cloud.hosts.all():
            if host.spec is not None and host.spec.value.cluster_id == cluster_id:
                view.hosts += 1
                view.vms += host.vms
        if cluster_id == 0:
            return cluster_pb2.Cluster(spec=cluster_pb2.ClusterSpec(name=DEFAULT_CLUSTER), view=view)
        entry = self._cloud.catalog.get("cluster", cluster_id)
        if entry is None:
            raise MolnError(Reason.CLUSTER_NOT_FOUND, f"there is no cluster {cluster_id}; see: moln cluster list")
        view.etag = str(entry.mod_revision)
        return cluster_pb2.Cluster(id=cluster_id, spec=entry.value, view=view)

    async def update(self, request: cluster_service_pb2.UpdateClusterRequest, caller: Caller) -> cluster_pb2.Cluster:
        """Changes labels or policies. Raises DEFAULT_OBJECT for the default one, ETAG_MISMATCH."""
        if request.id == 0:
            raise MolnError(
                Reason.DEFAULT_OBJECT,
                "update cluster: the default one has no labels, and its policies are the scheduler's setting policies",
            )

        def build() -> Txn:
            self.get(request.id)
            entry = self._cloud.catalog.get("cluster", request.id)
            assert entry is not None  # noqa: S101  for the type checker: `get` has looked
            check_etag(request.etag, entry, f"cluster {request.id}")
            spec: cluster_pb2.ClusterSpec = apply_mask(entry.value, request.spec, request.update_mask, _MUTABLE)
            check_labels("spec.labels", spec.labels)
            check_policies_of_cluster(spec.policies, "spec.policies")
            spec.cause.CopyFrom(cause_of(caller, "UPDATE"))
            return Txn().unchanged(entry.key, entry.mod_revision).put(entry.key, spec)

        await swap(self._store, f"update cluster {request.id}", build)
        return self.get(request.id)

    def list(self, request: cluster_service_pb2.ListClustersRequest) -> cluster_service_pb2.ListClustersResponse:
        """A page of clusters by id; the default one first."""
        token = page_token.decode(request.page_token, "")
        limit = page_token.size(request.page_size)
        found = [key_id for key_id in ["0" * 10, *self._store.cache.ids("cluster")] if key_id > token.last]
        page, revision = found[:limit], self._store.cache.revision
        return cluster_service_pb2.ListClustersResponse(
            clusters=[self.get(int(key_id)) for key_id in page],
            next_page_token=page_token.encode(page[-1], "", revision) if len(found) > limit else "",
            revision=revision,
        )

    async def delete(self, cluster_id: int) -> None:
        """Deletes a cluster. Raises CLUSTER_IN_USE while hosts are in it, DEFAULT_OBJECT for the default one."""

        def build() -> Txn:
            cluster = self.get(cluster_id)
            if cluster_id == 0:
                raise MolnError(Reason.DEFAULT_OBJECT, "delete cluster: the default cluster is always there")
            if cluster.view.hosts:
                raise MolnError(
                    Reason.CLUSTER_IN_USE,
                    f"delete cluster {cluster.spec.name}: it has {counted(cluster.view.hosts, 'host')}; move "
                    f"{them(cluster.view.hosts)} first: "
                    f"moln cluster remove {cluster.spec.name} HOST",
                )
            txn = Txn()
            txn.unchanged(key("cluster", cluster_id, "spec"), int(cluster.view.etag))
            txn.delete(key("cluster", cluster_id, "spec"))
            txn.delete(name_key("cluster", 0, cluster.spec.name))
            return txn

        await swap(self._store, f"delete cluster {cluster_id}", build)
