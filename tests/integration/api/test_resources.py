"""Hosts, clusters, templates and users: created, changed, deleted; what is in use stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from moln.compute.v1 import (
    cluster_pb2,
    cluster_service_pb2,
    host_pb2,
    host_service_pb2,
    placement_pb2,
    template_pb2,
    template_service_pb2,
    vm_pb2,
    vm_service_pb2,
)
from moln.etcd.v1 import etcd_pb2
from moln.iam.v1 import user_pb2, user_service_pb2
from moln.operations.v1 import operations_service_pb2
from services.common.store import Txn, key, watch
from services.common.store.etcd.client import EtcdClient
from tests.integration.api.running import Client, Clients, refused
from tests.integration.api.world import World
from tests.support.eventually import eventually

VM = template_pb2.VmTemplate(memory_mib=64)
BEHIND_S = 0.1


async def host(admin: Client, name: str, **fields: object) -> host_pb2.Host:
    """A new host."""
    request = host_service_pb2.CreateHostRequest(name=name, **fields)  # type: ignore[arg-type]
    created = await admin.hosts.CreateHost(request)
    return host_pb2.Host.FromString(created.host.SerializeToString())


# Hosts


async def test_a_host_is_new_and_has_a_token_and_an_address_to_dial(admin: Client) -> None:
    created = await admin.hosts.CreateHost(
        host_service_pb2.CreateHostRequest(name="node-1", labels={"rack": "a"}, taints=["gpu"])
    )
    assert created.join_token.startswith("molnjoin_") and created.node_address.startswith("127.0.0.1:")
    assert created.join_token_expire_time.seconds > 0
    assert (created.host.view.state, created.host.view.cluster) == (host_pb2.HOST_STATE_NEW, "default")
    assert (dict(created.host.spec.labels), list(created.host.spec.taints)) == ({"rack": "a"}, ["gpu"])
    with refused("NAME_TAKEN", "name", "moln host list"):
        await host(admin, "node-1")
    with refused("CLUSTER_NOT_FOUND"):
        await host(admin, "node-2", cluster_id=9)
    with refused("HOST_NOT_FOUND"):
        await admin.hosts.GetHost(host_service_pb2.GetHostRequest(id=99))


async def test_many_hosts_are_created_at_once_and_a_name_twice_refused(admin: Client) -> None:
    def batch(*names: str) -> host_service_pb2.BatchCreateHostsRequest:
        requests = [host_service_pb2.CreateHostRequest(name=name) for name in names]
        return host_service_pb2.BatchCreateHostsRequest(requests=requests)

    made = await admin.hosts.BatchCreateHosts(batch(*[f"h{number}" for number in range(50)]))
    assert len({each.host.id for each in made.hosts}) == len({each.join_token for each in made.hosts}) == 50
    with refused("NAME_TAKEN", "name"):
        await admin.hosts.BatchCreateHosts(batch("x", "y", "x"))
    with refused("FIELD_INVALID", "requests"):
        await admin.hosts.BatchCreateHosts(batch(*["x"] * 1001))
    listed = await admin.hosts.ListHosts(host_service_pb2.ListHostsRequest(filter="name=x,y"))
    assert not listed.hosts, "nothing half-made"


async def test_a_host_is_changed_within_bounds(admin: Client) -> None:
    made = await host(admin, "node-1")
    cluster = await admin.clusters.CreateCluster(cluster_service_pb2.CreateClusterRequest(name="east"))

    def update(*paths: str, etag: str = "", **fields: object) -> host_service_pb2.UpdateHostRequest:
        spec = host_pb2.HostSpec(**fields)  # type: ignore[arg-type]
        request = host_service_pb2.UpdateHostRequest(id=made.id, spec=spec, etag=etag)
        request.update_mask.paths.extend(paths)
        return request

    changed = await admin.hosts.UpdateHost(
        update("labels", "cpu_overcommit_percent", "cluster_id", labels={"a": "b"}, cpu_overcommit_percent=200,
               cluster_id=cluster.id)
    )  # fmt: skip
    assert (changed.view.cluster, changed.spec.cpu_overcommit_percent) == ("east", 200)
    with refused("ETAG_MISMATCH"):
        await admin.hosts.UpdateHost(update("labels", etag=made.view.etag))
    with refused("FIELD_INVALID", "spec.memory_overcommit_percent"):
        await admin.hosts.UpdateHost(update("memory_overcommit_percent", memory_overcommit_percent=10_001))
    with refused("FIELD_IMMUTABLE"):
        await admin.hosts.UpdateHost(update("name", name="other"))
    with refused("CLUSTER_NOT_FOUND"):
        await admin.hosts.UpdateHost(update("cluster_id", cluster_id=77))


async def test_a_host_is_disabled_and_enabled_again_and_twice_is_once(admin: Client, world: World) -> None:
    made = await host(admin, "node-1")
    for _ in range(2):
        disabled = await admin.hosts.DisableHost(host_service_pb2.DisableHostRequest(id=made.id))
        assert disabled.spec.mode == host_pb2.HOST_MODE_DISABLED
    enabled = await admin.hosts.EnableHost(host_service_pb2.EnableHostRequest(id=made.id))
    again = await admin.hosts.EnableHost(host_service_pb2.EnableHostRequest(id=made.id))
    assert enabled.view.etag == again.view.etag


async def test_a_host_with_vms_is_neither_deleted_nor_moved(admin: Client, world: World) -> None:
    made = await host(admin, "node-1")
    cluster = await admin.clusters.CreateCluster(cluster_service_pb2.CreateClusterRequest(name="east"))
    vm = await admin.vms.CreateVm(vm_service_pb2.CreateVmRequest(template=VM))
    await world.place(vm.id, made.id)
    await eventually(lambda: _vms_of(admin, made.id))
    with refused("HOST_IN_USE", words=f"({vm.id})"):
        await admin.hosts.DeleteHost(host_service_pb2.DeleteHostRequest(id=made.id))
    with refused("HOST_IN_USE"):
        await admin.clusters.AddHostToCluster(
            cluster_service_pb2.AddHostToClusterRequest(id=cluster.id, host_id=made.id)
        )
    shown = await admin.hosts.GetHost(host_service_pb2.GetHostRequest(id=made.id))
    assert shown.spec.mode == host_pb2.HOST_MODE_ENABLED
    await admin.vms.TerminateVm(vm_service_pb2.TerminateVmRequest(id=vm.id))
    await world.release(vm.id)
    await eventually(lambda: not world.store.cache.object("vm", vm.id))
    await admin.hosts.DeleteHost(host_service_pb2.DeleteHostRequest(id=made.id))
    with refused("HOST_NOT_FOUND"):
        await admin.hosts.GetHost(host_service_pb2.GetHostRequest(id=made.id))
    await world.settle()
    assert not world.store.cache.object("host", made.id)
    assert (await host(admin, "node-1")).id > made.id, "the name is free, the id never again"


async def _vms_of(admin: Client, host_id: int) -> int:
    shown = await admin.hosts.GetHost(host_service_pb2.GetHostRequest(id=host_id))
    return int(shown.view.vms)


async def test_of_a_placement_and_a_deletion_of_the_host_one_loses(admin: Client, world: World) -> None:
    """The scheduler compares the host's spec: it must have changed before the host is looked at for the last time."""
    for number in range(8):
        made = await host(admin, f"node-{number}")
        vm = await admin.vms.CreateVm(vm_service_pb2.CreateVmRequest(template=VM))
        await world.settle()
        spec = world.store.cache.get("host", made.id, "spec")
        assert spec is not None
        placement = world.value("vm", vm.id, "intent")
        bind = Txn().unchanged(spec.key, spec.mod_revision)
        bind.put(key("vm", vm.id, "placement"), vm_pb2.VmPlacement(uid=placement.uid, host_id=made.id, epoch=1))
        deleted, placed = await asyncio.gather(
            admin.hosts.DeleteHost(host_service_pb2.DeleteHostRequest(id=made.id)), world.store.commit(bind),
            return_exceptions=True,
        )  # fmt: skip
        assert isinstance(placed, int) == isinstance(deleted, BaseException), (placed, deleted)


# Clusters


async def test_hosts_go_into_clusters_and_back(admin: Client, clients: Clients) -> None:
    east = await admin.clusters.CreateCluster(cluster_service_pb2.CreateClusterRequest(name="east"))
    made = await host(admin, "node-1")
    add = cluster_service_pb2.AddHostToClusterRequest(id=east.id, host_id=made.id)
    for _ in range(2):
        assert (await admin.clusters.AddHostToCluster(add)).view.cluster == "east"
    assert (await admin.clusters.GetCluster(cluster_service_pb2.GetClusterRequest(id=east.id))).view.hosts == 1
    with refused("CLUSTER_IN_USE", words="moln cluster remove east"):
        await admin.clusters.DeleteCluster(cluster_service_pb2.DeleteClusterRequest(id=east.id))
    remove = cluster_service_pb2.RemoveHostFromClusterRequest(id=east.id, host_id=made.id)
    for _ in range(2):
        assert (await admin.clusters.RemoveHostFromCluster(remove)).view.cluster == "default"
    await admin.clusters.DeleteCluster(cluster_service_pb2.DeleteClusterRequest(id=east.id))
    anna = await clients.user("anna")
    listed = await anna.clusters.ListClusters(cluster_service_pb2.ListClustersRequest())
    assert [(each.id, each.spec.name, each.view.hosts) for each in listed.clusters] == [(0, "default", 1)]


async def test_labels_and_policies_of_a_cluster_are_changed(admin: Client, clients: Clients) -> None:
    packing = placement_pb2.WeightedPolicy(policy=placement_pb2.PLACEMENT_POLICY_PACKING, weight=2)
    rank = placement_pb2.WeightedPolicy(policy=placement_pb2.PLACEMENT_POLICY_RANK)
    made = await admin.clusters.CreateCluster(
        cluster_service_pb2.CreateClusterRequest(name="east", labels={"site": "graz"}, policies=[packing])
    )
    assert list(made.spec.policies) == [packing]

    def update(*paths: str, etag: str = "", **fields: object) -> cluster_service_pb2.UpdateClusterRequest:
        spec = cluster_pb2.ClusterSpec(**fields)  # type: ignore[arg-type]
        request = cluster_service_pb2.UpdateClusterRequest(id=made.id, spec=spec, etag=etag)
        request.update_mask.paths.extend(paths)
        return request

    changed = await admin.clusters.UpdateCluster(update("policies", labels={"not": "asked"}))
    assert (list(changed.spec.policies), dict(changed.spec.labels)) == ([], {"site": "graz"})
    with refused("ETAG_MISMATCH"):
        await admin.clusters.UpdateCluster(update("labels", etag=made.view.etag))
    with refused("FIELD_INVALID", "spec.policies[1].policy", words="RANK is for VMs"):
        await admin.clusters.UpdateCluster(update("policies", policies=[packing, rank]))
    with refused("FIELD_INVALID", "policies[0].policy"):
        await admin.clusters.CreateCluster(cluster_service_pb2.CreateClusterRequest(name="west", policies=[rank]))
    with refused("FIELD_IMMUTABLE"):
        await admin.clusters.UpdateCluster(update("name", name="other"))
    with refused("DEFAULT_OBJECT", words="setting policies"):
        await admin.clusters.UpdateCluster(cluster_service_pb2.UpdateClusterRequest(id=0))
    anna = await clients.user("anna")
    with refused("ROLE_MISSING"):
        await anna.clusters.UpdateCluster(update("policies"))


async def test_the_default_cluster_is_always_there(admin: Client) -> None:
    with refused("DEFAULT_OBJECT"):
        await admin.clusters.DeleteCluster(cluster_service_pb2.DeleteClusterRequest(id=0))
    for name in ("default", "east", "east"):
        if name == "default" or name in await _cluster_names(admin):
            with refused("NAME_TAKEN"):
                await admin.clusters.CreateCluster(cluster_service_pb2.CreateClusterRequest(name=name))
        else:
            await admin.clusters.CreateCluster(cluster_service_pb2.CreateClusterRequest(name=name))
    with refused("CLUSTER_NOT_FOUND"):
        await admin.clusters.GetCluster(cluster_service_pb2.GetClusterRequest(id=9))
    first = await admin.clusters.ListClusters(cluster_service_pb2.ListClustersRequest(page_size=1))
    rest = await admin.clusters.ListClusters(
        cluster_service_pb2.ListClustersRequest(page_size=1, page_token=first.next_page_token)
    )
    assert [each.spec.name for each in (*first.clusters, *rest.clusters)] == ["default", "east"]


async def _cluster_names(admin: Client) -> list[str]:
    listed = await admin.clusters.ListClusters(cluster_service_pb2.ListClustersRequest())
    return [each.spec.name for each in listed.clusters]


# Templates


async def test_a_template_is_its_owners_to_change(clients: Clients) -> None:
    anna, ben = await clients.user("anna"), await clients.user("ben")
    create = template_service_pb2.CreateTemplateRequest(name="small", template=VM)
    made = await anna.templates.CreateTemplate(create)
    assert (await ben.templates.CreateTemplate(create)).id != made.id, "names are each owner's own"
    with refused("NAME_TAKEN", "name"):
        await anna.templates.CreateTemplate(create)
    get = template_service_pb2.GetTemplateRequest(id=made.id)
    with refused("TEMPLATE_NOT_FOUND"):
        await ben.templates.GetTemplate(get)

    def update(*paths: str, etag: str = "", **fields: object) -> template_service_pb2.UpdateTemplateRequest:
        spec = template_pb2.TemplateSpec(**fields)  # type: ignore[arg-type]
        request = template_service_pb2.UpdateTemplateRequest(id=made.id, spec=spec, etag=etag)
        request.update_mask.paths.extend(paths)
        return request

    changed = await anna.templates.UpdateTemplate(update("is_public", is_public=True))
    assert (await ben.templates.GetTemplate(get)).spec.is_public
    with refused("TEMPLATE_NOT_FOUND"):
        await ben.templates.UpdateTemplate(update("is_public"))
    with refused("ETAG_MISMATCH"):
        await anna.templates.UpdateTemplate(update("is_public", etag=made.etag))
    with refused("FIELD_INVALID", "spec.template.vcpus"):
        await anna.templates.UpdateTemplate(update("template", template=template_pb2.VmTemplate(vcpus=1000)))
    assert (await ben.templates.GetTemplate(get)).etag == changed.etag
    await anna.templates.DeleteTemplate(template_service_pb2.DeleteTemplateRequest(id=made.id))
    with refused("TEMPLATE_NOT_FOUND"):
        await anna.templates.GetTemplate(get)
    await anna.templates.CreateTemplate(create)


async def test_a_template_that_is_only_checked_is_not_there(admin: Client) -> None:
    checked = template_service_pb2.CreateTemplateRequest(name="small", template=VM, validate_only=True)
    assert (await admin.templates.CreateTemplate(checked)).id == 0
    assert not (await admin.templates.ListTemplates(template_service_pb2.ListTemplatesRequest())).templates


# Users


@pytest.fixture
def catches_up(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Until it is set the api does not hear that a VM is gone, as one of several may. Name it before `api`."""
    first: list[EtcdClient] = []
    hears, answers = asyncio.Event(), watch.answers

    async def late(client: EtcdClient, after: int, silence: float) -> AsyncGenerator[watch.Events, None]:
        first.append(client)
        async with aclosing(answers(client, after, silence)) as stream:
            async for events in stream:
                if client is first[0] and any(event.type == etcd_pb2.Event.EVENT_TYPE_DELETE for event in events):
                    await hears.wait()
                yield events

    monkeypatch.setattr(watch, "answers", late)
    return hears


async def test_a_user_with_vms_stays(catches_up: asyncio.Event, clients: Clients, admin: Client, world: World) -> None:
    anna = await clients.user("anna")
    vm = await anna.vms.CreateVm(vm_service_pb2.CreateVmRequest(template=VM))
    delete = user_service_pb2.DeleteUserRequest(id=anna.user_id)
    with refused("USER_IN_USE", words="he has 1 VM; terminate it"):
        await admin.users.DeleteUser(delete)
    await anna.vms.TerminateVm(vm_service_pb2.TerminateVmRequest(id=vm.id))
    await eventually(lambda: not world.store.cache.object("vm", vm.id))
    asyncio.get_running_loop().call_later(BEHIND_S, catches_up.set)
    await admin.users.DeleteUser(delete)
    await world.settle()
    assert not world.store.cache.object("user", anna.user_id)
    assert world.value("usage", anna.user_id) is None
    assert (await clients.user("anna")).user_id > anna.user_id


async def test_the_last_administrator_stays(clients: Clients, admin: Client) -> None:
    with refused("LAST_ADMIN"):
        await admin.users.DeleteUser(user_service_pb2.DeleteUserRequest(id=1))
    with refused("LAST_ADMIN"):
        await admin.users.UpdateUser(_demotion(1))
    second = await clients.user("second", role=user_pb2.ROLE_ADMIN)
    outcomes = await asyncio.gather(
        admin.users.UpdateUser(_demotion(second.user_id)), second.users.UpdateUser(_demotion(1)),
        return_exceptions=True,
    )  # fmt: skip
    assert sum(isinstance(outcome, user_pb2.User) for outcome in outcomes) == 1, "two who depose each other: one stays"


def _demotion(user_id: int) -> user_service_pb2.UpdateUserRequest:
    request = user_service_pb2.UpdateUserRequest(id=user_id, spec=user_pb2.UserSpec(role=user_pb2.ROLE_USER))
    request.update_mask.paths.append("role")
    return request


async def test_a_users_name_and_capabilities_are_checked(clients: Clients, admin: Client) -> None:
    await clients.user("anna", capabilities=["vm.raw"])
    with refused("NAME_TAKEN"):
        await clients.user("anna")
    with refused("FIELD_INVALID", "capabilities", "vm.raw"):
        await clients.user("ben", capabilities=["root"])
    with refused("FIELD_INVALID", "name"):
        await clients.user("12")


async def test_everyone_sees_himself_and_administrators_all(clients: Clients, admin: Client) -> None:
    anna, ben = await clients.user("anna"), await clients.user("ben")
    hers = await anna.users.ListUsers(user_service_pb2.ListUsersRequest())
    assert [user.spec.name for user in hers.users] == ["anna"]
    with refused("USER_NOT_FOUND"):
        await anna.users.GetUser(user_service_pb2.GetUserRequest(id=ben.user_id))
    everybody = await admin.users.ListUsers(user_service_pb2.ListUsersRequest(page_size=2))
    assert [user.spec.name for user in everybody.users] == ["admin", "anna"]
    assert everybody.next_page_token


# The cloud


async def test_the_clouds_defaults_must_exist(admin: Client, clients: Clients, world: World) -> None:
    anna = await clients.user("anna")
    with refused("NETWORK_NOT_FOUND", words="there is no network 9"):
        await admin.operations.UpdateCloud(operations_service_pb2.UpdateCloudRequest(default_network_id=9))
    with refused("DATASTORE_NOT_FOUND"):
        await admin.operations.UpdateCloud(operations_service_pb2.UpdateCloudRequest(default_datastore_id=9))
    with refused("ROLE_MISSING"):
        await anna.operations.UpdateCloud(operations_service_pb2.UpdateCloudRequest())
