"""Who gets in: tokens, passwords, roles, and what is open to all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from moln.compute.v1 import host_service_pb2, vm_pb2, vm_service_pb2
from moln.iam.v1 import user_pb2, user_service_pb2
from moln.node.v1 import node_service_pb2, node_service_pb2_grpc
from services.api.access.table import ACCESS, Access
from tests.integration.api.running import Client, Clients, Running, refused

WHO = user_service_pb2.WhoAmIRequest()


async def served(address: str) -> set[str]:
    """Every method that a server has, found by reflection as a client would."""
    async with grpc.aio.insecure_channel(address) as channel:
        listed = await reflect(channel, reflection_pb2.ServerReflectionRequest(list_services=""))
        methods: set[str] = set()
        for service in listed.list_services_response.service:
            request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=service.name)
            answer = await reflect(channel, request)
            methods |= _methods(service.name, answer.file_descriptor_response.file_descriptor_proto)
        return methods


async def reflect(channel: Any, request: Any) -> Any:
    """One question to the reflection service."""
    call: Any = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
    return await anext(aiter(call(iter([request]))))


def _methods(service: str, files: Iterable[bytes]) -> set[str]:
    found = set()
    for raw in files:
        file = FileDescriptorProto.FromString(raw)
        for each in file.service:
            if f"{file.package}.{each.name}" == service:
                found |= {f"/{service}/{method.name}" for method in each.method}
    return found


async def test_every_method_that_is_served_has_a_row_and_none_has_one_in_vain(api: Running) -> None:
    methods = await served(api.address) | await served(api.nodes)
    assert methods == set(ACCESS)


async def test_nothing_but_health_and_reflection_answers_without_credentials(api: Running) -> None:
    async with grpc.aio.insecure_channel(api.address) as channel:
        for method in sorted(await served(api.address)):
            if ACCESS[method] is Access.OPEN:
                continue
            ask: Any = channel.unary_stream(method)
            call = ask(b"", timeout=10)
            assert await call.code() == grpc.StatusCode.UNAUTHENTICATED, method


async def test_who_comes_without_a_token_is_told_how_to_send_one(clients: Clients) -> None:
    with refused("TOKEN_MISSING", words="authorization: Bearer"):
        await clients.by_token("").users.WhoAmI(WHO)


async def test_a_wrong_token_is_refused(clients: Clients) -> None:
    with refused("TOKEN_INVALID"):
        await clients.by_token("moln_nonsense").users.WhoAmI(WHO)


@pytest.mark.parametrize("header", ["Basic", "Basic ???", "Basic bm9jb2xvbg==", "Digest abc", "Bearer"])
async def test_a_header_that_is_none_is_refused(clients: Clients, header: str) -> None:
    client = clients.by_header(header)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.users.WhoAmI(WHO)
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED


async def test_the_first_administrators_token_is_in_a_file_that_only_its_owner_can_read(
    api: Running, admin: Client
) -> None:
    assert (api.settings.state_dir / "admin.token").stat().st_mode & 0o777 == 0o600
    me = await admin.users.WhoAmI(WHO)
    assert (me.id, me.spec.name, me.spec.role) == (1, "admin", user_pb2.ROLE_ADMIN)


async def test_only_administrators_do_what_is_theirs(clients: Clients) -> None:
    anna = await clients.user("anna")
    with refused("ROLE_MISSING", words="only administrators"):
        await anna.hosts.ListHosts(host_service_pb2.ListHostsRequest())
    with refused("ROLE_MISSING"):
        await anna.users.CreateUser(user_service_pb2.CreateUserRequest(name="ben"))


async def test_a_role_that_is_given_or_taken_holds_from_the_next_call_on(clients: Clients, admin: Client) -> None:
    anna = await clients.user("anna")
    for role in (user_pb2.ROLE_ADMIN, user_pb2.ROLE_USER):
        request = user_service_pb2.UpdateUserRequest(id=anna.user_id, spec=user_pb2.UserSpec(role=role))
        request.update_mask.paths.append("role")
        await admin.users.UpdateUser(request)
        if role == user_pb2.ROLE_ADMIN:
            await anna.hosts.ListHosts(host_service_pb2.ListHostsRequest())
        else:
            with refused("ROLE_MISSING"):
                await anna.hosts.ListHosts(host_service_pb2.ListHostsRequest())


async def test_a_sole_token_ends_all_others_at_once(clients: Clients) -> None:
    anna = await clients.user("anna")
    second = clients.by_token(
        (await anna.users.CreateToken(user_service_pb2.CreateTokenRequest(id=anna.user_id))).token
    )
    assert (await second.users.WhoAmI(WHO)).id == anna.user_id
    assert (await anna.users.WhoAmI(WHO)).id == anna.user_id
    third = await second.users.CreateToken(user_service_pb2.CreateTokenRequest(id=anna.user_id, is_sole=True))
    for former in (anna, second):
        with refused("TOKEN_INVALID"):
            await former.users.WhoAmI(WHO)
    assert (await clients.by_token(third.token).users.WhoAmI(WHO)).id == anna.user_id


async def test_nobody_makes_a_token_or_password_for_somebody_else(clients: Clients) -> None:
    anna, ben = await clients.user("anna"), await clients.user("ben")
    with refused("USER_NOT_FOUND"):
        await anna.users.CreateToken(user_service_pb2.CreateTokenRequest(id=ben.user_id))
    with refused("USER_NOT_FOUND"):
        await anna.users.SetPassword(user_service_pb2.SetPasswordRequest(id=1, password="long enough"))


async def test_a_password_lets_in_until_it_is_changed_or_removed(clients: Clients) -> None:
    anna = await clients.user("anna")
    set_password = anna.users.SetPassword
    with refused("PASSWORD_INVALID"):
        await clients.by_password("anna", "").users.WhoAmI(WHO)
    await set_password(user_service_pb2.SetPasswordRequest(id=anna.user_id, password="correct horse"))
    by_password = clients.by_password("anna", "correct horse")
    for _ in range(2):  # the second time it is remembered
        assert (await by_password.users.WhoAmI(WHO)).spec.name == "anna"
    await set_password(user_service_pb2.SetPasswordRequest(id=anna.user_id, password="battery staple"))
    with refused("PASSWORD_INVALID", words="name or password is wrong"):
        await by_password.users.WhoAmI(WHO)
    assert (await clients.by_password("anna", "battery staple").users.WhoAmI(WHO)).id == anna.user_id
    await set_password(user_service_pb2.SetPasswordRequest(id=anna.user_id))
    with refused("PASSWORD_INVALID"):
        await clients.by_password("anna", "battery staple").users.WhoAmI(WHO)


async def test_a_name_that_does_not_exist_is_refused_in_the_same_words_as_a_wrong_password(clients: Clients) -> None:
    anna = await clients.user("anna")
    await anna.users.SetPassword(user_service_pb2.SetPasswordRequest(id=anna.user_id, password="correct horse"))
    with refused("PASSWORD_INVALID") as wrong:
        await clients.by_password("anna", "something else").users.WhoAmI(WHO)
    with refused("PASSWORD_INVALID") as unknown:
        await clients.by_password("nobody", "something else").users.WhoAmI(WHO)
    assert wrong.message == unknown.message


async def test_a_short_password_is_refused(clients: Clients) -> None:
    anna = await clients.user("anna")
    with refused("FIELD_INVALID", "password", "at least 8"):
        await anna.users.SetPassword(user_service_pb2.SetPasswordRequest(id=anna.user_id, password="seven77"))


async def test_a_deleted_user_is_out_at_once(clients: Clients, admin: Client) -> None:
    anna = await clients.user("anna")
    await anna.users.SetPassword(user_service_pb2.SetPasswordRequest(id=anna.user_id, password="correct horse"))
    by_password = clients.by_password("anna", "correct horse")
    await by_password.users.WhoAmI(WHO)
    await admin.users.DeleteUser(user_service_pb2.DeleteUserRequest(id=anna.user_id))
    with refused("TOKEN_INVALID"):
        await anna.users.WhoAmI(WHO)
    with refused("PASSWORD_INVALID"):
        await by_password.users.WhoAmI(WHO)


async def test_what_is_not_ones_own_is_not_there(clients: Clients) -> None:
    anna, ben = await clients.user("anna"), await clients.user("ben")
    request = vm_service_pb2.CreateVmRequest(name="mine")
    request.template.memory_mib = 64
    vm = await anna.vms.CreateVm(request)
    for call in (
        ben.vms.GetVm(vm_service_pb2.GetVmRequest(id=vm.id)),
        ben.vms.TerminateVm(vm_service_pb2.TerminateVmRequest(id=vm.id)),
        ben.vms.WaitVm(vm_service_pb2.WaitVmRequest(id=vm.id, state=vm_pb2.VM_STATE_RUNNING)),
        ben.vms.GetVmConsoleLog(vm_service_pb2.GetVmConsoleLogRequest(id=vm.id)),
        ben.vms.UpdateVm(vm_service_pb2.UpdateVmRequest(id=vm.id)),
    ):
        with refused("VM_NOT_FOUND"):
            await call
    assert (await clients.admin().vms.GetVm(vm_service_pb2.GetVmRequest(id=vm.id))).spec.owner == "anna"


async def test_the_port_of_nodes_serves_no_users_and_that_of_users_no_nodes(api: Running, clients: Clients) -> None:
    token = api.admin_token
    wrong = Client(api.nodes, f"Bearer {token}")
    clients.made.append(wrong)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await wrong.users.WhoAmI(WHO)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await node_service_pb2_grpc.NodeServiceStub(clients.admin().channel).Join(node_service_pb2.JoinRequest())
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_health_answers_for_the_server_and_each_service(api: Running) -> None:
    for address in (api.address, api.nodes):
        async with grpc.aio.insecure_channel(address) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            for service in {"", *{method.split("/")[1] for method in await served(address)}} - {
                "grpc.reflection.v1alpha.ServerReflection",
            }:
                answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
                assert answer.status == health_pb2.HealthCheckResponse.SERVING, service


async def test_channelz_answers_administrators_only(clients: Clients, admin: Client) -> None:
    anna = await clients.user("anna")
    stub: Any = channelz_pb2_grpc.ChannelzStub
    answer = await stub(admin.channel).GetServers(channelz_pb2.GetServersRequest())
    assert answer.server
    with refused("ROLE_MISSING"):
        await stub(anna.channel).GetServers(channelz_pb2.GetServersRequest())
