"""Creating VMs: names resolved, requests repeated, batches with a bad member, limits under pressure."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from google.protobuf.json_format import ParseDict

from moln.common.v1 import common_pb2
from moln.compute.v1 import host_service_pb2, template_pb2, template_service_pb2, vm_pb2, vm_service_pb2
from moln.iam.v1 import user_pb2, user_service_pb2
from moln.image.v1 import image_pb2
from moln.operations.v1 import operations_service_pb2
from services.common.store import Txn, key
from tests.integration.api.conftest import Start
from tests.integration.api.running import Client, Clients, refused
from tests.integration.api.world import World
from tests.support.eventually import eventually

Create = vm_service_pb2.CreateVmRequest


def create(template: dict[str, Any] | None = None, **fields: Any) -> Create:
    """A request from the words of a template."""
    request = Create(**fields)
    ParseDict({"memory_mib": 64, **(template or {})}, request.template)
    return request


async def batch(client: Client, *requests: Create) -> list[vm_service_pb2.BatchCreateVmsResult]:
    """The results of a batch."""
    answer = await client.vms.BatchCreateVms(vm_service_pb2.BatchCreateVmsRequest(requests=requests))
    return list(answer.results)


async def count(client: Client) -> int:
    """VMs that a client sees."""
    return len((await client.vms.ListVms(vm_service_pb2.ListVmsRequest())).vms)


async def test_a_vm_is_pending_with_its_defaults_filled_in(admin: Client) -> None:
    vm = await admin.vms.CreateVm(create({"vcpus": 2}, name="web"))
    assert (vm.id, vm.spec.name, vm.spec.owner, vm.spec.owner_id) == (1, "web", "admin", 1)
    assert (vm.spec.template.cpu_percent, vm.intent.generation) == (200, 1)
    assert (vm.view.state, vm.view.reason) == (vm_pb2.VM_STATE_PENDING, "WAITING_FOR_SCHEDULER")
    assert vm.spec.uid == vm.intent.uid == vm.uid
    assert vm.view.etag
    assert (await admin.vms.CreateVm(create())).spec.name.startswith("vm-")


async def test_a_bad_field_is_refused_by_its_path(admin: Client) -> None:
    with refused("FIELD_INVALID", "template.vcpus"):
        await admin.vms.CreateVm(create({"vcpus": 1000}))
    with refused("EXPRESSION_INVALID", "template.requirement"):
        await admin.vms.CreateVm(create({"requirement": "FREE_CPU >"}))
    with refused("FIELD_INVALID", "name"):
        await admin.vms.CreateVm(create(name="123"))
    with refused("HOST_NOT_FOUND"):
        await admin.vms.CreateVm(create(host_id=9))
    with refused("TEMPLATE_NOT_FOUND", "template_id"):
        await admin.vms.CreateVm(create(template_id=9))
    assert await count(admin) == 0


# Names


async def test_an_image_is_found_by_name_or_id_ones_own_first_then_public(clients: Clients, world: World) -> None:
    anna = await clients.user("anna")
    await world.image(1, "debian", owner_id=1, is_public=True)
    await world.image(2, "debian", owner_id=anna.user_id, size_mib=50)
    await world.image(3, "secret", owner_id=1)
    await eventually_sees(anna, "debian")

    async def image_of(text: str) -> tuple[int, int]:
        vm = await anna.vms.CreateVm(create({"disks": [{"image": text}]}))
        return vm.spec.template.disks[0].image_id, vm.spec.template.disks[0].size_mib

    assert await image_of("debian") == (2, 50)
    assert await image_of("1") == (1, 100)
    for hidden in ("secret", "3", "fedora", "99"):
        with refused("IMAGE_NOT_FOUND", "template.disks[0].image", "moln image list"):
            await image_of(hidden)


async def eventually_sees(client: Client, image: str) -> None:
    """Waits until the api has heard of an image."""

    async def is_there() -> bool:
        request = create({"disks": [{"image": image}]}, validate_only=True)
        return bool((await batch(client, request))[0].HasField("vm"))

    await eventually(is_there, what=f"image {image}")


async def test_a_name_that_several_have_is_refused_with_their_ids(clients: Clients, world: World) -> None:
    anna = await clients.user("anna")
    await world.image(1, "debian", owner_id=8, is_public=True)
    await world.image(2, "debian", owner_id=9, is_public=True)
    await world.image(3, "other", owner_id=9, is_public=True)
    await eventually_sees(anna, "other")
    with refused("NAME_AMBIGUOUS", "template.disks[0].image", "1, 2"):
        await anna.vms.CreateVm(create({"disks": [{"image": "debian"}]}))


async def test_a_network_is_resolved_and_the_default_one_added(admin: Client, world: World) -> None:
    await world.network(4, "net")
    await world.network(5, "other")

    async def is_default() -> bool:
        cloud = operations_service_pb2.UpdateCloudRequest(default_network_id=5)
        return (await admin.operations.UpdateCloud(cloud)).default_network_id == 5

    await eventually_ok(is_default)
    vm = await admin.vms.CreateVm(create({"nics": [{"network": "net"}]}))
    assert [nic.network_id for nic in vm.spec.template.nics] == [4]
    assert vm.intent.needs_addresses and not vm.intent.needs_volumes
    vm = await admin.vms.CreateVm(create())
    assert [nic.network_id for nic in vm.spec.template.nics] == [5]
    vm = await admin.vms.CreateVm(create({"no_default_network": True}))
    assert not vm.spec.template.nics


async def eventually_ok(check: Any) -> None:
    """Waits until a call succeeds and says yes."""

    async def tried() -> bool:
        try:
            return bool(await check())
        except grpc.aio.AioRpcError:
            return False

    await eventually(tried)


async def test_a_full_network_or_a_taken_address_is_refused_at_once(admin: Client, world: World) -> None:
    await world.network(4, "net", size=2)
    await world.lease(4, "10.0.0.1")
    nic = {"network": "net"}
    await eventually_refused(admin, create({"nics": [nic, nic]}), "ADDRESSES_EXHAUSTED")
    with refused("ADDRESS_TAKEN", "template.nics[0].ipv4"):
        await admin.vms.CreateVm(create({"nics": [{**nic, "ipv4": "10.0.0.1"}]}))
    with refused("FIELD_INVALID", "template.nics[0].ipv4", "no range"):
        await admin.vms.CreateVm(create({"nics": [{**nic, "ipv4": "10.0.0.77"}]}))
    results = await batch(admin, create({"nics": [nic]}), create({"nics": [nic]}), create())
    assert [result.failure.reason for result in results] == ["", "ADDRESSES_EXHAUSTED", ""]
    with refused("ADDRESSES_EXHAUSTED", "template.nics[1].network"):
        await admin.vms.CreateVm(create({"nics": [nic, nic]}))


async def test_an_image_that_is_used_is_referred_to_and_one_that_is_deleted_refused(
    admin: Client, world: World
) -> None:
    await world.image(1, "debian")
    await eventually_sees(admin, "debian")
    vm = await admin.vms.CreateVm(create({"disks": [{"image": "debian"}, {"image": "1"}, {"size_mib": 5}]}))
    await world.settle()
    reference = world.value("imageref", 1, f"{vm.id:010d}")
    assert isinstance(reference, image_pb2.ImageReference) and reference.vm_uid == vm.uid
    await world.doom_image(1)
    await eventually_refused(admin, create({"disks": [{"image": "debian"}]}), "IMAGE_NOT_FOUND")


async def eventually_refused(client: Client, request: Create, reason: str) -> None:
    """Waits until a request is refused with a reason."""
    request.validate_only = True

    async def is_refused() -> bool:
        return (await batch(client, request))[0].failure.reason == reason

    await eventually(is_refused, what=reason)


# Repeated requests


async def test_a_repeated_request_answers_its_first_result(clients: Clients, admin: Client) -> None:
    request = create(name="web", request_id="r-1")
    first, again = await admin.vms.CreateVm(request), await admin.vms.CreateVm(request)
    assert first.id == again.id and first.uid == again.uid
    assert await count(admin) == 1
    with refused("REQUEST_ID_REUSED", "request_id"):
        await admin.vms.CreateVm(create(name="db", request_id="r-1"))
    anna = await clients.user("anna")
    assert (await anna.vms.CreateVm(request)).id != first.id, "each user has request ids of his own"


async def test_the_same_request_many_times_at_once_makes_one_vm(admin: Client) -> None:
    request = create(request_id="r-1")
    vms = await asyncio.gather(*[admin.vms.CreateVm(request) for _ in range(20)])
    assert len({vm.id for vm in vms}) == 1
    results = await batch(admin, request, request, create(request_id="r-2"))
    assert len({result.vm.id for result in results}) == 2
    assert await count(admin) == 2


async def test_a_repeated_request_is_answered_though_a_limit_would_refuse_it_by_now(clients: Clients) -> None:
    anna = await clients.user("anna", limits=common_pb2.Amounts(vms=1))
    request = create(request_id="r-1")
    first = await anna.vms.CreateVm(request)
    assert (await anna.vms.CreateVm(request)).id == first.id
    with refused("QUOTA_EXCEEDED"):
        await anna.vms.CreateVm(create())


async def test_a_repeated_request_for_a_vm_that_is_gone_says_so(admin: Client, world: World) -> None:
    request = create(request_id="r-1")
    vm = await admin.vms.CreateVm(request)
    await admin.vms.TerminateVm(vm_service_pb2.TerminateVmRequest(id=vm.id))
    await eventually(lambda: not world.store.cache.object("vm", vm.id))
    again = await admin.vms.CreateVm(request)
    assert (again.id, again.view.state) == (vm.id, vm_pb2.VM_STATE_DONE)


async def test_a_request_id_that_is_none_is_refused(admin: Client) -> None:
    with refused("FIELD_INVALID", "request_id"):
        await admin.vms.CreateVm(create(request_id="a/b"))


async def test_a_repeated_verb_has_its_effect_once(admin: Client) -> None:
    vm = await admin.vms.CreateVm(create())
    hold = vm_service_pb2.HoldVmRequest(id=vm.id, request_id="h-1")
    assert (await admin.vms.HoldVm(hold)).view.state == vm_pb2.VM_STATE_HELD
    await admin.vms.ReleaseVm(vm_service_pb2.ReleaseVmRequest(id=vm.id, request_id="h-2"))
    assert (await admin.vms.HoldVm(hold)).view.state == vm_pb2.VM_STATE_PENDING, "it was carried out long ago"
    with refused("REQUEST_ID_REUSED"):
        await admin.vms.ReleaseVm(vm_service_pb2.ReleaseVmRequest(id=vm.id, request_id="h-1"))


async def test_other_objects_are_created_once_by_one_request_too(admin: Client) -> None:
    host = host_service_pb2.CreateHostRequest(name="node-1", request_id="r-1")
    first, again = await admin.hosts.CreateHost(host), await admin.hosts.CreateHost(host)
    assert first.host.id == again.host.id
    assert first.join_token != again.join_token
    template = template_service_pb2.CreateTemplateRequest(name="small", request_id="r-2")
    assert (await admin.templates.CreateTemplate(template)).id == (await admin.templates.CreateTemplate(template)).id


# Checks without effect


async def test_what_is_only_checked_answers_the_vm_and_creates_nothing(clients: Clients, admin: Client) -> None:
    anna = await clients.user("anna", limits=common_pb2.Amounts(vcpus=2))
    vm = await anna.vms.CreateVm(create({"vcpus": 2}, validate_only=True, request_id="r-1"))
    assert (vm.id, vm.spec.template.cpu_percent) == (0, 200)
    with refused("QUOTA_EXCEEDED"):
        await anna.vms.CreateVm(create({"vcpus": 3}, validate_only=True))
    assert await count(admin) == 0
    real = await anna.vms.CreateVm(create({"vcpus": 2}, request_id="r-1"))
    assert real.id, "checking did not spend the request id"


# Batches


async def test_one_bad_member_of_a_batch_leaves_the_others_be(admin: Client, world: World) -> None:
    await world.image(1, "debian")
    await eventually_sees(admin, "debian")
    big = {"context": {"start_script": "x" * 61_000, "variables": {"A": "y" * 3_000}}}
    results = await batch(
        admin, create(name="a"), create({"vcpus": 1000}), create(big), create({"disks": [{"image": "debian"}]}),
        create({"disks": [{"image": "none"}]}), create(name="b"),
    )  # fmt: skip
    assert [result.failure.reason for result in results] == [
        "", "FIELD_INVALID", "FIELD_INVALID", "", "IMAGE_NOT_FOUND", "",
    ]  # fmt: skip
    assert [result.failure.field for result in results if result.HasField("failure")] == [
        "template.vcpus", "template", "template.disks[0].image",
    ]  # fmt: skip
    assert [results[0].vm.spec.name, results[5].vm.spec.name] == ["a", "b"]
    assert await count(admin) == 3


async def test_a_batch_is_bounded_and_may_be_empty(admin: Client) -> None:
    with refused("FIELD_INVALID", "requests", "1001"):
        await batch(admin, *[create()] * 1001)
    assert await batch(admin) == []
    results = await batch(admin, *[create()] * 1000)
    assert len({result.vm.id for result in results}) == 1000


# Limits


async def test_limits_hold_however_many_create_at_once(clients: Clients, start: Start) -> None:
    anna = await clients.user("anna", limits=common_pb2.Amounts(vms=25, memory_mib=64 * 40))
    async with start("second") as second:
        other = Client(second.address, f"Bearer {await token_of(anna)}", [("moln-min-revision", "STRONG")])
        outcomes = await asyncio.gather(
            *[(anna if number % 2 else other).vms.CreateVm(create()) for number in range(40)], return_exceptions=True
        )
        results = (await asyncio.gather(batch(anna, *[create()] * 10), batch(other, *[create()] * 10)))[0]
        await other.channel.close()
    assert sum(isinstance(outcome, vm_pb2.Vm) for outcome in outcomes) == 25
    assert {result.failure.reason for result in results} == {"QUOTA_EXCEEDED"}
    me = await anna.users.WhoAmI(user_service_pb2.WhoAmIRequest())
    assert (me.usage.vms, me.usage.memory_mib) == (25, 25 * 64)


async def token_of(client: Client) -> str:
    """A further token of a user."""
    answer = await client.users.CreateToken(user_service_pb2.CreateTokenRequest(id=client.user_id))
    return str(answer.token)


async def test_what_a_vm_took_is_given_back_when_it_is_gone(clients: Clients, world: World) -> None:
    anna = await clients.user("anna", limits=common_pb2.Amounts(vms=1, disk_mib=100))
    vm = await anna.vms.CreateVm(create({"disks": [{"size_mib": 100}]}))
    with refused("QUOTA_EXCEEDED", words="the limit is 1"):
        await anna.vms.CreateVm(create())
    await world.volumes(vm.id)
    await anna.vms.TerminateVm(vm_service_pb2.TerminateVmRequest(id=vm.id))
    await world.settle()
    assert world.store.cache.object("vm", vm.id), "imagesvc has not given back its part yet"
    await world.release(vm.id)
    await eventually(lambda: not world.store.cache.object("vm", vm.id))
    await anna.vms.CreateVm(create({"disks": [{"size_mib": 100}]}))


async def test_a_raised_limit_holds_at_once(clients: Clients, admin: Client) -> None:
    anna = await clients.user("anna", limits=common_pb2.Amounts(vms=1))
    await anna.vms.CreateVm(create())
    spec = user_pb2.UserSpec(limits=common_pb2.Amounts(vms=2))
    request = user_service_pb2.UpdateUserRequest(id=anna.user_id, spec=spec)
    request.update_mask.paths.append("limits")
    await admin.users.UpdateUser(request)
    await anna.vms.CreateVm(create())


# Secrets


async def test_secrets_are_stored_apart_and_no_answer_shows_them(admin: Client, world: World) -> None:
    template = {"context": {"secret_variables": {"PASSWORD": "hunter2"}, "variables": {"A": "1"}}}
    request = create(template, name="web")
    created = await admin.vms.CreateVm(request)
    assert dict(created.spec.template.context.variables) == {"A": "1"}
    shown = [
        created,
        await admin.vms.GetVm(vm_service_pb2.GetVmRequest(id=created.id)),
        await admin.vms.ListVms(vm_service_pb2.ListVmsRequest()),
        await anext(aiter(admin.vms.WatchVms(vm_service_pb2.WatchVmsRequest()))),
        await admin.vms.CreateVm(create(template, validate_only=True)),
    ]
    assert all(b"hunter2" not in answer.SerializeToString() for answer in shown)
    stored = await world.store.read(key("vm", created.id, "secrets"))
    assert stored is not None and stored.value.context_variables["PASSWORD"] == "hunter2"


# Templates


async def test_a_template_is_instantiated_with_what_is_laid_over_it(clients: Clients, admin: Client) -> None:
    shape = template_pb2.VmTemplate(memory_mib=64, vcpus=2, labels={"tier": "web"})
    made = await admin.templates.CreateTemplate(
        template_service_pb2.CreateTemplateRequest(name="small", template=shape, is_public=True)
    )
    anna = await clients.user("anna")
    over = template_pb2.VmTemplate(memory_mib=128)
    vm = await anna.templates.InstantiateTemplate(
        template_service_pb2.InstantiateTemplateRequest(id=made.id, overrides=over, is_held=True)
    )
    assert (vm.spec.template.memory_mib, vm.spec.template.vcpus) == (128, 2)
    assert vm.spec.name == f"small-{vm.id}"
    assert (vm.spec.template_id, vm.view.state) == (made.id, vm_pb2.VM_STATE_HELD)
    with refused("TEMPLATE_NOT_FOUND"):
        await anna.templates.DeleteTemplate(template_service_pb2.DeleteTemplateRequest(id=made.id))


async def test_nothing_is_created_for_a_user_who_is_gone(clients: Clients, admin: Client, world: World) -> None:
    anna = await clients.user("anna")
    await world.store.commit(Txn().delete(key("usage", anna.user_id)))
    with refused("USER_NOT_FOUND"):
        await anna.vms.CreateVm(create())
