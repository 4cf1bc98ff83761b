"""The scheduler as a service: its answers, its standby, its death."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from moln.compute.v1 import host_pb2
from moln.operations.v1 import records_pb2
from moln.scheduler.v1 import scheduler_service_pb2 as pb
from moln.scheduler.v1 import scheduler_service_pb2_grpc
from services.common.domain.caller import Caller
from services.common.rpc import connect, decode_error, read_service_secret, secret_headers
from tests.integration.scheduler.conftest import Running, Start
from tests.integration.scheduler.world import World, template
from tests.support.etcd import EtcdServer
from tests.support.eventually import eventually
from tests.support.processes import Processes

ADMIN, OWNER, STRANGER = Caller(1, "root", is_admin=True), Caller(7, "ada"), Caller(8, "eve")
Stub = scheduler_service_pb2_grpc.SchedulerServiceStub


@asynccontextmanager
async def client(address: str, secret_file: Path) -> AsyncIterator[Stub]:
    """A caller with the secret."""
    async with connect(address, headers=secret_headers(read_service_secret(secret_file))) as channel:
        yield scheduler_service_pb2_grpc.SchedulerServiceStub(channel)


async def test_a_vm_is_explained_to_its_owner(world: World, scheduler: Running, secret_file: Path) -> None:
    await world.host(1, labels={"rack": "1"})
    await world.host(2, labels={"rack": "2"})
    await world.host(3)
    await world.mode(3, host_pb2.HOST_MODE_DISABLED)
    await world.vm(1, template(requirement="LABEL_RACK > 0", rank="LABEL_RACK + LABEL_ROW"))
    await eventually(lambda: world.host_of(1) == 2)
    async with client(scheduler.address, secret_file) as stub:
        answer = await stub.ExplainVm(pb.ExplainVmRequest(id=1), metadata=OWNER.to_metadata())
    assert answer.reason == ""
    assert answer.hosts == 3
    assert [(each.name, each.hosts_left) for each in answer.filters] == [
        ("enabled", 2), ("connected", 2), ("taints", 2), ("requirement", 2), ("cpu", 2), ("memory", 2),
    ]  # fmt: skip
    assert [(each.host_id, each.host, each.score) for each in answer.candidates] == [(2, "h2", 2.0), (1, "h1", 1.0)]
    assert list(answer.unknown_attributes) == ["LABEL_ROW"]


async def test_a_waiting_vm_is_explained_as_it_is_noted(world: World, scheduler: Running, secret_file: Path) -> None:
    await world.host(1, cpus=1)
    await world.vm(1, template(cpu_percent=500))
    await eventually(lambda: world.pending(1)[0] == "NO_HOST_FITS")
    async with client(scheduler.address, secret_file) as stub:
        answer = await stub.ExplainVm(pb.ExplainVmRequest(id=1), metadata=ADMIN.to_metadata())
    assert (answer.reason, answer.message) == world.pending(1)
    assert not answer.candidates


async def test_the_vm_of_another_is_not_found(world: World, scheduler: Running, secret_file: Path) -> None:
    await world.vm(1)
    async with client(scheduler.address, secret_file) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ExplainVm(pb.ExplainVmRequest(id=1), metadata=STRANGER.to_metadata())
    assert decode_error(caught.value).reason == "VM_NOT_FOUND"


async def test_an_expression_is_checked(world: World, scheduler: Running, secret_file: Path) -> None:
    await world.host(1)
    async with client(scheduler.address, secret_file) as stub:
        fine = pb.CheckExpressionRequest(requirement='ARCH = "x86_64" & LABEL_X = 1', rank="FREE_CPU")
        answer = await stub.CheckExpression(fine, metadata=OWNER.to_metadata())
        assert list(answer.unknown_attributes) == ["LABEL_X"]
        assert list(answer.warnings) == ["no host has the attribute LABEL_X"]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.CheckExpression(pb.CheckExpressionRequest(rank="FREE_CPU >"), metadata=OWNER.to_metadata())
    error = decode_error(caught.value)
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert error.reason == "EXPRESSION_INVALID"
    assert error.metadata["column"] == "11"
    assert error.fields[0][0] == "rank"


async def test_without_the_secret_nothing_is_answered(scheduler: Running) -> None:
    async with connect(scheduler.address) as channel:
        stub = scheduler_service_pb2_grpc.SchedulerServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ExplainVm(pb.ExplainVmRequest(id=1), metadata=ADMIN.to_metadata())
    assert decode_error(caught.value).reason == "SERVICE_SECRET_INVALID"


async def test_a_standby_refuses_and_names_the_leader(scheduler: Running, start: Start, secret_file: Path) -> None:
    async with start() as standby, client(standby.address, secret_file) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.CheckExpression(pb.CheckExpressionRequest(), metadata=ADMIN.to_metadata())
    error = decode_error(caught.value)
    assert error.reason == "NOT_LEADER"
    assert scheduler.address in error.message


async def test_a_standby_takes_over_from_a_leader_that_is_killed(
    world: World, etcd: EtcdServer, secret_file: Path, running: Processes
) -> None:
    written: Counter[str] = Counter()

    def count(changes: object, _revision: int) -> None:
        assert isinstance(changes, list | tuple)
        written.update(each.id for each in changes if each.part == "placement")

    world.store.cache.subscribe(count, {"vm"})
    for host_id in range(1, 6):
        await world.host(host_id, cpus=400, memory_mib=1_000_000)
    environment = {
        "MOLN_SCHEDULER_ETCD_ENDPOINTS": etcd.endpoint,
        "MOLN_SCHEDULER_LISTEN": "127.0.0.1:0",
        "MOLN_SCHEDULER_METRICS_ADDRESS": "",
        "MOLN_SCHEDULER_SERVICE_SECRET_FILE": str(secret_file),
    }
    command = [sys.executable, "-m", "services.scheduler"]
    first = running.start(command, env=environment, name="first")
    await eventually(lambda: world.store.leader_address("scheduler"))
    running.start(command, env=environment, name="second")
    await eventually(lambda: len(world.store.cache.ids("process")) == 3)
    for start in range(1, 2001, 100):
        await world.vms(range(start, start + 100))
        if start == 1001:
            first.kill()
    await eventually(lambda: len(world.placed()) == 2000, within=60)
    assert set(written.values()) == {1}
    assert max(Counter(world.placed().values()).values()) <= 400
    entry = world.store.cache.get("leader", "scheduler")
    assert entry is not None
    assert isinstance(entry.value, records_pb2.LeaderRecord)
    assert "Traceback" not in running.output("second")
