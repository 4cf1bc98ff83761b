"""The frame around methods: all four kinds, errors, ids, trailers, metrics, health, reflection, addresses."""

from __future__ import annotations

import asyncio
import io
import json
import re
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc

from moln.compute.v1 import vm_service_pb2
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.obs.logs import REQUEST_ID, configure_logs
from services.common.obs.metrics import Metrics
from services.common.rpc import (
    Call,
    ClientTls,
    Deadline,
    RemoteError,
    RpcServer,
    connect,
    decode_error,
    make_service_secret,
    read_service_secret,
    secret_gate,
    secret_headers,
)
from services.common.rpc.channel import service_config
from services.common.runtime import SettingsError, TlsFiles
from tests.support.eventually import eventually
from tests.unit.common.rpc.conftest import Served
from tests.unit.common.rpc.echo import NAME, Echo, EchoStub, text


async def texts(*values: str) -> AsyncIterator[StringValue]:
    for value in values:
        yield text(value)


async def failure(call: Any) -> RemoteError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    return decode_error(caught.value)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    configure_logs("test", form="json", stream=stream)
    yield stream
    configure_logs("test")


async def test_all_kinds_of_methods_are_served(served: Served) -> None:
    assert (await served.stub.one(text("a"))).value == "a"
    assert [answer.value async for answer in served.stub.many(text("m"))] == ["m0", "m1", "m2"]
    assert (await served.stub.collect(texts("a", "b"))).value == "ab"
    assert [answer.value async for answer in served.stub.chat(texts("x", "y"))] == ["x", "y"]
    assert [answer.value async for answer in served.stub.written(text("w"))] == ["w"]
    for method in ("One", "Many", "Collect", "Chat", "Written"):
        assert served.count(method, "OK") == 1


@pytest.mark.parametrize("kind", ["one", "many", "collect", "chat"])
async def test_a_domain_error_reaches_the_client_whole(served: Served, kind: str) -> None:
    method = getattr(served.stub, kind)
    error = await failure(method(texts("refuse") if kind in {"collect", "chat"} else text("refuse")))
    assert (error.code, error.reason, error.message) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "QUOTA_EXCEEDED",
        "no more",
    )
    assert error.metadata["limit"] == "3"
    assert error.request_id
    assert served.count(kind.capitalize(), "RESOURCE_EXHAUSTED") == 1


async def test_a_client_that_is_refused_while_it_still_sends_hears_why(served: Served) -> None:
    for _ in range(20):
        error = await failure(served.stub.collect(texts("refuse at once", *["x" * 20_000] * 20)))
        assert (error.reason, error.message) == ("QUOTA_EXCEEDED", "no more")


async def test_field_violations_reach_the_client(served: Served) -> None:
    error = await failure(served.stub.one(text("field")))
    assert error.fields == (("vm.name", "must not be empty"),)
    assert error.code == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_defect_is_internal_names_the_request_and_is_logged_once(log: io.StringIO) -> None:
    metrics = Metrics("test")
    server = RpcServer(metrics)
    server.add_handlers(NAME, Echo().handlers())
    address = str(server.listen("127.0.0.1:0"))
    async with server, connect(address) as channel:
        error = await failure(EchoStub(channel).one(text("defect"), metadata=(("moln-request-id", "find-me"),)))
    assert error.code == grpc.StatusCode.INTERNAL
    assert "find-me" in error.message
    assert "hunter2" not in error.message
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [line["request_id"] for line in lines if "exception" in line] == ["find-me"]


async def test_an_abort_by_hand_keeps_its_code(served: Served) -> None:
    assert (await failure(served.stub.one(text("abort")))).code == grpc.StatusCode.DATA_LOSS
    await eventually(lambda: served.count("One", "DATA_LOSS") == 1)


async def test_a_client_that_leaves_cancels_the_method(served: Served) -> None:
    call = served.stub.many(text("hang"))
    assert (await call.read()).value == "hang0"
    call.cancel()
    await served.echo.cancelled.wait()
    await eventually(lambda: served.count("Many", "CANCELLED") == 1)
    open_streams = {"method": f"{NAME}/Many"}
    assert served.metrics.registry.get_sample_value("moln_test_rpc_open_streams", open_streams) == 0


async def test_the_clients_request_id_is_kept_and_a_bad_one_replaced(served: Served) -> None:
    await served.stub.one(text("a"), metadata=(("moln-request-id", "mine-1"),))
    await served.stub.one(text("a"), metadata=(("moln-request-id", "x" * 65),))
    REQUEST_ID.set("outer-7")
    await served.stub.one(text("a"))
    kept, replaced, inherited = [call.request_id for call in served.echo.calls]
    assert (kept, inherited) == ("mine-1", "outer-7")
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]+", replaced)


async def test_trailers_are_sent_with_the_reply(served: Served) -> None:
    call = served.stub.one(text("trailer"))
    await call
    assert dict(await call.trailing_metadata())["moln-revision"] == "42"


async def test_a_call_without_a_deadline_gets_one(served: Served) -> None:
    async with connect(served.address, deadline=Deadline.READ) as channel:
        await EchoStub(channel).one(text("a"))
    remaining = served.echo.calls[-1].context.time_remaining()
    assert remaining is not None
    assert remaining <= Deadline.READ.value + 1.0  # a deadline travels rounded up


async def test_a_passed_deadline_says_so(served: Served) -> None:
    error = await failure(served.stub.one(text("hang"), timeout=0.05))
    assert (error.code, error.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "")


async def test_an_error_of_another_service_is_passed_on_whole(served: Served) -> None:
    class Proxy:
        async def one(self, request: StringValue, _context: grpc.aio.ServicerContext[Any, Any]) -> StringValue:
            answer: StringValue = await served.stub.one(request)
            return answer

    front = RpcServer(Metrics("front"))
    coders = (StringValue.FromString, StringValue.SerializeToString)
    front.add_handlers(NAME, {"One": grpc.unary_unary_rpc_method_handler(Proxy().one, *coders)})
    address = str(front.listen("127.0.0.1:0"))
    async with front, connect(address) as channel:
        error = await failure(EchoStub(channel).one(text("refuse"), metadata=(("moln-request-id", "far"),)))
    assert (error.reason, error.metadata) == ("QUOTA_EXCEEDED", {"limit": "3", "request_id": "far"})


async def test_a_gate_decides_before_the_method_runs() -> None:
    echo = Echo()

    async def gate(call: Call) -> None:
        if call.header("who") != "me":
            raise MolnError(Reason.TOKEN_MISSING, "who are you?")
        call.caller = "me"

    server = RpcServer(Metrics("test"), gate=gate)
    server.add_handlers(NAME, echo.handlers())
    address = str(server.listen("127.0.0.1:0"))
    async with server, connect(address) as channel:
        stub = EchoStub(channel)
        assert (await failure(stub.one(text("a")))).reason == "TOKEN_MISSING"
        assert (await failure(stub.many(text("a")))).code == grpc.StatusCode.UNAUTHENTICATED
        await stub.one(text("a"), metadata=(("who", "me"),))
    assert [call.caller for call in echo.calls] == ["me"]


async def test_internal_calls_carry_the_services_secret(folder: Path) -> None:
    path = folder / "secret"
    make_service_secret(path)
    make_service_secret(path)
    secret = read_service_secret(path)
    server = RpcServer(Metrics("test"), gate=secret_gate(secret))
    server.add_handlers(NAME, Echo().handlers())
    address = str(server.listen("127.0.0.1:0"))
    async with server, connect(address) as stranger, connect(address, headers=secret_headers(secret)) as friend:
        assert (await failure(EchoStub(stranger).one(text("a")))).reason == "SERVICE_SECRET_INVALID"
        assert (await EchoStub(friend).one(text("a"))).value == "a"
        stub: Any = health_pb2_grpc.HealthStub(stranger)
        await stub.Check(health_pb2.HealthCheckRequest())


def test_a_secret_that_others_can_read_is_refused(folder: Path) -> None:
    path = folder / "secret"
    make_service_secret(path)
    path.chmod(0o644)
    with pytest.raises(SettingsError, match="others can read it: chmod 600"):
        read_service_secret(path)


async def test_health_follows_the_service(served: Served) -> None:
    async with connect(served.address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        asked = health_pb2.HealthCheckRequest(service=NAME)
        assert (await stub.Check(asked)).status == health_pb2.HealthCheckResponse.SERVING
        await served.server.set_serving(False)
        assert (await stub.Check(asked)).status == health_pb2.HealthCheckResponse.NOT_SERVING


async def grpcurl(*words: str) -> str:
    process = await asyncio.create_subprocess_exec(
        "grpcurl", "-plaintext", *words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={"PATH": f"{Path(__file__).parents[4] / '.venv' / 'bin'}:/usr/bin:/bin"},
    )  # fmt: skip
    output, _ = await process.communicate()
    return output.decode()


async def test_grpcurl_finds_the_services_by_reflection(served: Served) -> None:
    found = set((await grpcurl(served.address, "list")).split())
    assert {NAME, "grpc.health.v1.Health", "grpc.channelz.v1.Channelz"} <= found


async def test_grpcurl_describes_services_methods_and_messages(served: Served) -> None:
    for symbol in ("Health", "Health.Check", "HealthCheckRequest"):
        described = await grpcurl(served.address, "describe", f"grpc.health.v1.{symbol}")
        assert f"grpc.health.v1.{symbol} is a" in described, described
    for symbol in ("Health.Cheque", "Nothing", "Nothing.Check"):
        assert "not found" in await grpcurl(served.address, "describe", f"grpc.health.v1.{symbol}")


async def test_nothing_listens_beyond_loopback_without_tls() -> None:
    server = RpcServer(Metrics("test"))
    with pytest.raises(SettingsError, match=r"0\.0\.0\.0:0 can be reached from other machines: give TLS files"):
        server.listen("0.0.0.0:0")


def test_no_token_leaves_the_machine_in_the_clear() -> None:
    with pytest.raises(SettingsError, match=r"192\.0\.2\.1:2632 is on another machine"):
        connect("192.0.2.1:2632")


async def test_a_port_in_use_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(SettingsError, match=f"{address} is in use"):
            RpcServer(Metrics("test")).listen(address)


async def test_a_unix_socket_is_for_its_owner(folder: Path) -> None:
    server = RpcServer(Metrics("test"))
    server.add_handlers(NAME, Echo().handlers())
    address = server.listen(f"unix:{folder}/api.sock")
    assert (folder / "api.sock").stat().st_mode & 0o777 == 0o600
    async with server, connect(str(address)) as channel:
        assert (await EchoStub(channel).one(text("a"))).value == "a"


def test_only_what_may_be_repeated_is_retried() -> None:
    service = vm_service_pb2.DESCRIPTOR.services_by_name["VmService"]
    reads = retried_methods(service, creates_are_repeatable=False)
    assert {"GetVm", "ListVms"} <= reads
    assert not {"CreateVm", "SuspendVm", "WatchVms"} & reads
    assert "CreateVm" in retried_methods(service, creates_are_repeatable=True)


def retried_methods(service: ServiceDescriptor, *, creates_are_repeatable: bool) -> set[str]:
    config = json.loads(service_config([service], creates_are_repeatable))
    return {name["method"] for entry in config["methodConfig"] for name in entry["name"]}


async def test_mutual_tls_lets_in_whom_the_authority_vouches_for(folder: Path) -> None:
    make_certificates(folder)
    server = RpcServer(Metrics("test"))
    server.add_handlers(NAME, Echo().handlers())
    files = TlsFiles(folder / "server.pem", folder / "server.key", folder / "ca.pem")
    port = server.listen("0.0.0.0:0", tls=files).port
    known = ClientTls(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    unknown = ClientTls(folder / "ca.pem")
    address = f"127.0.0.1:{port}"
    async with server, connect(address, tls=known) as friend, connect(address, tls=unknown) as stranger:
        assert (await EchoStub(friend).one(text("a"))).value == "a"
        assert (await failure(EchoStub(stranger).one(text("a")))).code == grpc.StatusCode.UNAVAILABLE


def make_certificates(folder: Path) -> None:
    """An authority and one certificate for 127.0.0.1 by it."""
    (folder / "extensions").write_text("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    authority = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "extensions"]
    for words in (
        ["req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca", "-days", "2"],
        ["req", "-new", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=server"],
        ["x509", "-req", "-in", "server.csr", *authority, "-out", "server.pem", "-days", "2"],
    ):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)
