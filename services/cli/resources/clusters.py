"""Clusters."""

from __future__ import annotations

from moln.compute.v1.cluster_pb2 import Cluster
from moln.compute.v1.cluster_service_pb2 import GetClusterRequest, ListClustersRequest, ListClustersResponse
from services.cli.objects import Resource
from services.cli.sizes import age
from services.cli.tables import Column

CLUSTERS: Resource[Cluster] = Resource(
    word="cluster",
    service="moln.compute.v1.ClusterService",
    message=Cluster,
    get_request=GetClusterRequest,
    list_request=ListClustersRequest,
    list_reply=ListClustersResponse,
    items="clusters",
    name_of=lambda cluster: cluster.spec.name,
    has_filter=False,
    columns=(
        Column("ID", lambda cluster: str(cluster.id), is_number=True),
        Column("NAME", lambda cluster: cluster.spec.name),
        Column("HOSTS", lambda cluster: str(cluster.view.hosts), is_number=True),
        Column("VMS", lambda cluster: str(cluster.view.vms), is_number=True),
        Column("AGE", lambda cluster: age(cluster.spec.create_time)),
    ),
)
