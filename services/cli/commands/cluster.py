"""`moln cluster`: named parts of the hosts."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import click
from google.protobuf.field_mask_pb2 import FieldMask

from moln.compute.v1.cluster_pb2 import Cluster
from moln.compute.v1.cluster_service_pb2 import (
    AddHostToClusterRequest,
    CreateClusterRequest,
    DeleteClusterRequest,
    DeleteClusterResponse,
    RemoveHostFromClusterRequest,
    UpdateClusterRequest,
)
from moln.compute.v1.host_pb2 import Host
from moln.compute.v1.placement_pb2 import WeightedPolicy
from services.cli.command_line import Group
from services.cli.exits import usage
from services.cli.options import KEY_VALUE, Name, confirm, list_options, output_option, yes_option
from services.cli.policies import policy_option, policy_words
from services.cli.printing import fields, list_objects, print_object, section
from services.cli.resources.clusters import CLUSTERS
from services.cli.resources.hosts import HOSTS, state_of
from services.cli.session import Session
from services.cli.sizes import clock


@click.group("cluster", cls=Group)
def command() -> None:
    """Named parts of the hosts."""


@command.command(
    "create",
    examples="""
    moln cluster create gpu
    moln cluster create batch --policy packing --label site=graz
    """,
)
@click.argument("name")
@click.option("--label", type=KEY_VALUE, multiple=True, metavar="KEY=VALUE", help="Label, CLUSTER_LABEL_<KEY> for VMs.")
@policy_option("How its hosts are ranked for VMs that do not say; may be repeated.")
@click.pass_obj
def create_cluster(
    session: Session, name: str, label: Sequence[tuple[str, str]], policy: Sequence[WeightedPolicy]
) -> None:
    """Creates a cluster."""
    request = CreateClusterRequest(name=name, labels=dict(label), policies=policy, request_id=str(uuid.uuid4()))
    created = session.client.unary(CLUSTERS.path("CreateCluster"), request, Cluster)
    click.echo(f"created {CLUSTERS.title(created)}")


@command.command(
    "list",
    examples="""
    moln cluster list
    """,
)
@list_options
@click.pass_obj
def list_clusters(session: Session, output: str, watch: bool) -> None:
    """Shows the clusters."""
    list_objects(session, CLUSTERS, output=output, watch=watch)


@command.command(
    "show",
    examples="""
    moln cluster show default
    """,
)
@click.argument("cluster", type=Name("cluster"))
@output_option()
@click.pass_obj
def show_cluster(session: Session, cluster: str, output: str) -> None:
    """Shows one cluster and its hosts."""
    found = CLUSTERS.find(session.client, cluster)
    hosts = list(HOSTS.list(session.client, f"cluster={found.spec.name}")) if output == "text" else []
    print_object(CLUSTERS, found, output, _cluster_lines(found, hosts))


def _cluster_lines(cluster: Cluster, hosts: Sequence[Host]) -> list[str]:
    head = fields(
        (
            ("cluster", f"{cluster.spec.name} ({cluster.id})"),
            ("vms", str(cluster.view.vms)),
            ("policies", policy_words(cluster.spec.policies)),
            ("created", clock(cluster.spec.create_time)),
            ("labels", " ".join(f"{key}={value}" for key, value in sorted(cluster.spec.labels.items()))),
        )
    )
    return [*head, *section("Hosts", [f"{host.spec.name} ({host.id}) {state_of(host)}" for host in hosts])]


@command.command(
    "update",
    examples="""
    moln cluster update batch --policy packing=2 --policy load-aware
    moln cluster update batch --no-policies --label site=
    """,
)
@click.argument("cluster", type=Name("cluster"))
@click.option("--label", type=KEY_VALUE, multiple=True, metavar="KEY=VALUE", help="Label to set; KEY= removes it.")
@policy_option("All policies, in place of the former ones; may be repeated.")
@click.option("--no-policies", is_flag=True, help="No policies any more: as the scheduler's settings say.")
@click.pass_obj
def update_cluster(
    session: Session, cluster: str, label: Sequence[tuple[str, str]], policy: Sequence[WeightedPolicy],
    no_policies: bool,
) -> None:  # fmt: skip
    """Changes labels, and how hosts of the cluster are ranked."""
    if policy and no_policies:
        raise usage("--policy and --no-policies exclude each other")
    found = CLUSTERS.find(session.client, cluster)
    request = UpdateClusterRequest(id=found.id, spec=found.spec, etag=found.view.etag, update_mask=FieldMask())
    for name, value in label:
        request.spec.labels[name] = value
        if not value:
            del request.spec.labels[name]
    if policy or no_policies:
        request.spec.ClearField("policies")
        request.spec.policies.extend(policy)
    changed = {"labels": bool(label), "policies": bool(policy or no_policies)}
    request.update_mask.paths.extend(path for path, is_set in changed.items() if is_set)
    if not request.update_mask.paths:
        raise usage("nothing to change: see `moln cluster update --help`")
    click.echo(f"changed {CLUSTERS.title(session.client.unary(CLUSTERS.path('UpdateCluster'), request, Cluster))}")


@command.command(
    "add",
    examples="""
    moln cluster add gpu node-1 node-2
    """,
)
@click.argument("cluster", type=Name("cluster"))
@click.argument("hosts", type=Name("host"), nargs=-1, required=True)
@click.pass_obj
def add_hosts(session: Session, cluster: str, hosts: Sequence[str]) -> None:
    """Puts hosts into a cluster, out of the one that they were in."""
    number = CLUSTERS.id_of(session.client, cluster)
    for found in HOSTS.find_all(session.client, hosts):
        request = AddHostToClusterRequest(id=number, host_id=found.id)
        host = session.client.unary(CLUSTERS.path("AddHostToCluster"), request, Host)
        click.echo(f"{HOSTS.title(host)} is in cluster {host.view.cluster}")


@command.command(
    "remove",
    examples="""
    moln cluster remove gpu node-1
    """,
)
@click.argument("cluster", type=Name("cluster"))
@click.argument("hosts", type=Name("host"), nargs=-1, required=True)
@click.pass_obj
def remove_hosts(session: Session, cluster: str, hosts: Sequence[str]) -> None:
    """Puts hosts back into the default cluster."""
    number = CLUSTERS.id_of(session.client, cluster)
    for found in HOSTS.find_all(session.client, hosts):
        request = RemoveHostFromClusterRequest(id=number, host_id=found.id)
        host = session.client.unary(CLUSTERS.path("RemoveHostFromCluster"), request, Host)
        click.echo(f"{HOSTS.title(host)} is in cluster {host.view.cluster}")


@command.command(
    "delete",
    examples="""
    moln cluster delete gpu
    """,
)
@click.argument("cluster", type=Name("cluster"))
@yes_option
@click.pass_obj
def delete_cluster(session: Session, cluster: str, yes: bool) -> None:
    """Deletes a cluster without hosts."""
    found = CLUSTERS.find(session.client, cluster)
    confirm(f"Delete {CLUSTERS.title(found)}?", yes=yes)
    request = DeleteClusterRequest(id=found.id)
    session.client.unary(CLUSTERS.path("DeleteCluster"), request, DeleteClusterResponse)
    click.echo(f"deleted {CLUSTERS.title(found)}")
