"""A node's agent, played by hand over the real protocol: it does what a test tells it, and remembers what it hears."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc

from moln.compute.v1 import host_pb2, vm_pb2
from moln.node.v1 import node_service_pb2 as pb
from moln.node.v1 import node_service_pb2_grpc
from services.common.rpc import connect
from tests.support.eventually import eventually

P = vm_pb2.VmPhase


async def join(address: str, token: str) -> pb.JoinResponse:
    """Exchanges a join token for a node's secret."""
    async with connect(address) as channel:
        answer: pb.JoinResponse = await node_service_pb2_grpc.NodeServiceStub(channel).Join(
            pb.JoinRequest(join_token=token, hostname="test")
        )
        return answer


class Agent:
    """One stream. `async with` it."""

    def __init__(self, address: str, *hosts: pb.HostHello, agent_id: str = "agent") -> None:
        self._channel = connect(address)
        self._hello = pb.Hello(agent_id=agent_id, version="1", hosts=hosts)
        self._stream: Any = node_service_pb2_grpc.NodeServiceStub(self._channel).Connect()
        self._reading: asyncio.Task[None] | None = None
        self._sequence = 0
        self.welcome = pb.Welcome()
        self.orders: dict[tuple[int, int], pb.VmOrder] = {}
        self.history: list[pb.VmOrder] = []
        self.acks: dict[int, pb.ReportAck] = {}
        self.complete: dict[int, list[int]] = {}
        self.tunnels: list[pb.TunnelOrder] = []
        self.heartbeat_ack = 0
        self.has_ended = False
        self.code: grpc.StatusCode | None = None

    async def __aenter__(self) -> Agent:
        await self._stream.write(pb.ConnectRequest(hello=self._hello))
        first = await self._stream.read()
        assert isinstance(first, pb.ConnectResponse), (await self._stream.code(), await self._stream.details())
        self.welcome = first.welcome
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stream.cancel()
        if self._reading is not None:
            await asyncio.gather(self._reading, return_exceptions=True)
        await self._channel.close()

    async def _read(self) -> None:
        try:
            while (answer := await self._stream.read()) is not grpc.aio.EOF:
                self._receive(answer)
        except (grpc.aio.AioRpcError, asyncio.CancelledError):
            pass
        self.has_ended = True
        self.code = await self._stream.code()

    def _receive(self, answer: pb.ConnectResponse) -> None:
        for order in answer.orders:
            self.orders[order.host_id, order.vm_id] = order
            self.history.append(order)
        self.acks.update({ack.sequence: ack for ack in answer.acks})
        self.complete.update({each.host_id: list(each.vm_ids) for each in answer.complete})
        self.tunnels.extend(answer.tunnels)
        self.heartbeat_ack = answer.heartbeat_ack or self.heartbeat_ack

    async def send(self, **parts: Any) -> None:
        """Sends one message of these parts."""
        await self._stream.write(pb.ConnectRequest(**parts))

    async def sync(self, *host_ids: int, cpus: int = 8, memory_mib: int = 8192) -> None:
        """Reports inventories and that all guests have been reported; waits until all orders are there."""
        ids = host_ids or tuple(host.host_id for host in self._hello.hosts)
        for host_id in ids:
            self.complete.pop(host_id, None)
        inventory = host_pb2.HostInventory(cpus=cpus, memory_mib=memory_mib, disk_mib=100_000, driver="test")
        reports = [pb.HostReport(host_id=host_id, inventory=inventory) for host_id in ids]
        await self.send(hosts=reports, synced_host_ids=ids)
        await eventually(lambda: all(host_id in self.complete for host_id in ids), what="complete")

    async def order(
        self, vm_id: int, check: Callable[[pb.VmOrder], bool] = lambda _: True, host_id: int = 0
    ) -> pb.VmOrder:
        """The order for a VM, once there is one that passes the check."""
        place = (host_id or self._hello.hosts[0].host_id, vm_id)
        await eventually(lambda: place in self.orders and check(self.orders[place]), what=f"order for {place}")
        return self.orders[place]

    async def report(self, order: pb.VmOrder, phase: vm_pb2.VmPhase, **fields: Any) -> str:
        """Reports a phase of an ordered VM; returns the reason of the answer, empty where it is stored."""
        return await self.tell(self._report(order, phase, **fields))

    async def claim(self, order: pb.VmOrder, **fields: Any) -> str:
        """Asks for leave to start an ordered VM."""
        report = self._report(order, P.VM_PHASE_STARTING, **fields)
        report.is_claim = True
        return await self.tell(report)

    async def start(self, order: pb.VmOrder) -> None:
        """Takes an ordered VM all the way to running."""
        assert await self.claim(order) == ""
        assert await self.report(order, P.VM_PHASE_RUNNING) == ""

    async def gone(self, order: pb.VmOrder) -> str:
        """Reports that nothing of a VM is left."""
        report = self._report(order, P.VM_PHASE_UNSPECIFIED)
        report.is_gone = True
        return await self.tell(report)

    async def tell(self, *reports: pb.VmReport) -> str:
        """Sends reports in one message; the reason of the last answer."""
        for report in reports:
            self._sequence += 1
            report.sequence = self._sequence
        await self.send(reports=reports)
        last = self._sequence
        await eventually(lambda: last in self.acks or self.has_ended, what=f"answer to report {last}")
        ack = self.acks[last]
        assert ack.is_stored == (not ack.reason)
        return ack.reason

    def _report(self, order: pb.VmOrder, phase: vm_pb2.VmPhase, **fields: Any) -> pb.VmReport:
        status = vm_pb2.VmStatus(
            uid=order.uid,
            host_id=order.host_id,
            epoch=order.epoch,
            phase=phase,
            observed_generation=order.intent.generation,
            attempt=order.status.attempt + 1,
        )
        status.since.GetCurrentTime()
        if phase == P.VM_PHASE_RUNNING:
            status.start_time.GetCurrentTime()
        status.MergeFrom(vm_pb2.VmStatus(**fields))
        return pb.VmReport(vm_id=order.vm_id, status=status)

    async def open_tunnel(self, order: pb.TunnelOrder) -> NodeTunnel:
        """Dials a tunnel that was asked for."""
        channel = connect(order.address)
        stream = node_service_pb2_grpc.NodeServiceStub(channel).OpenTunnel(metadata=(("moln-ticket", order.ticket),))
        return NodeTunnel(channel, stream)


class NodeTunnel:
    """The node's end of a tunnel."""

    def __init__(self, channel: grpc.aio.Channel, stream: Any) -> None:
        self._channel = channel
        self._stream = stream

    async def write(self, data: bytes = b"", reason: str = "", message: str = "") -> None:
        """What the guest writes, or why the node ends the tunnel."""
        await self._stream.write(pb.OpenTunnelRequest(data=data, reason=reason, message=message))

    async def read(self) -> bytes:
        """What was typed; empty at the end."""
        answer = await self._stream.read()
        return b"" if answer is grpc.aio.EOF else bytes(answer.data)

    async def done(self) -> None:
        """Says that nothing more comes."""
        await self._stream.done_writing()

    async def close(self) -> None:
        """Hangs up."""
        self._stream.cancel()
        await self._channel.close()
