"""A node gateway that stands in for the api's: it keeps the contract of NodeService in memory, and can misbehave.

It grants and refuses claims by epoch, keeps statuses as the store would, holds answers back, drops streams.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Self

import grpc

from moln.compute.v1 import vm_pb2
from moln.compute.v1.host_pb2 import HostInventory
from moln.compute.v1.vm_pb2 import VmPhase, VmStatus
from moln.image.v1.image_pb2 import Datastore
from moln.node.v1.node_service_pb2 import (
    ConnectRequest,
    ConnectResponse,
    Hello,
    HostHello,
    HostOrders,
    HostReport,
    JoinRequest,
    JoinResponse,
    OpenTunnelRequest,
    OpenTunnelResponse,
    ReportAck,
    TunnelKind,
    TunnelOrder,
    VmOrder,
    VmReport,
    Welcome,
)
from moln.node.v1.node_service_pb2_grpc import NodeServiceServicer, add_NodeServiceServicer_to_server
from tests.support.eventually import eventually

Place = tuple[int, int]
CLOUD_UID = "00000000-0000-4000-8000-0000000c10d0"


def vm_uid(vm_id: int) -> str:
    """The uid that the gateway gives a VM."""
    return f"00000000-0000-4000-8000-{vm_id:012d}"


@dataclass
class Stream:
    """One agent's stream."""

    hello: Hello
    out: asyncio.Queue[ConnectResponse | None] = field(default_factory=asyncio.Queue)
    synced: set[int] = field(default_factory=set)
    reported: set[Place] = field(default_factory=set)
    """What was reported before the host was synced."""

    def hosts(self) -> dict[int, HostHello]:
        """The hosts that it carries."""
        return {host.host_id: host for host in self.hello.hosts}


class FakeGateway(NodeServiceServicer):
    """The gateway and its store."""

    def __init__(self) -> None:
        self.orders: dict[Place, VmOrder] = {}
        self.statuses: dict[Place, VmStatus] = {}
        self.inventories: dict[int, HostInventory] = {}
        self.host_reports: dict[int, HostReport] = {}
        self.phases: list[tuple[int, int, str]] = []
        """(host, VM, phase) of every report that was stored, in their order; "GONE" for the last."""
        self.claims: list[VmStatus] = []
        self.reports: list[VmReport] = []
        self.streams: list[Stream] = []
        self.hellos: list[Hello] = []
        self.refuse: dict[int, str] = {}
        """VM id → reason with which its reports are refused."""
        self.refused_hosts: dict[int, str] = {}
        self.holds_acks = False
        self.holds_heartbeats = False
        self.datastores: list[Datastore] = []
        self.join_tokens: dict[str, tuple[int, str]] = {}
        self.tunnels: dict[str, asyncio.Queue[OpenTunnelRequest | None]] = {}
        self.typed: dict[str, asyncio.Queue[OpenTunnelResponse | None]] = {}
        self.on_report: Callable[[VmReport], None] = lambda _report: None
        self._held: list[tuple[Stream, ReportAck]] = []
        self._server: grpc.aio.Server | None = None
        self.address = ""

    async def start(self, address: str = "127.0.0.1:0") -> str:
        """Serves; returns where."""
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        add_NodeServiceServicer_to_server(self, self._server)
        port = self._server.add_insecure_port(address)
        await self._server.start()
        self.address = f"127.0.0.1:{port}"
        return self.address

    async def stop(self) -> None:
        """Ends all streams and the server."""
        self.drop()
        if self._server is not None:
            await self._server.stop(0)
            self._server = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # What a test does

    def run(self, vm_id: int, host_id: int = 1, *, epoch: int = 1, **more: Any) -> VmOrder:
        """Places a VM on a host and orders it to run; `more` are fields of its template."""
        order = self.an_order(vm_id, host_id, epoch=epoch, **more)
        self.send(order)
        return order

    def an_order(self, vm_id: int, host_id: int = 1, *, epoch: int = 1, **more: Any) -> VmOrder:
        """An order to run a VM, not sent yet."""
        order = VmOrder(host_id=host_id, vm_id=vm_id, uid=vm_uid(vm_id), epoch=epoch)
        order.spec.uid = order.intent.uid = order.placement.uid = order.uid
        order.spec.name = f"vm{vm_id}"
        order.spec.template.memory_mib = 128
        order.spec.template.vcpus = 1
        for name, value in more.items():
            _set(order.spec.template, name, value)
        order.intent.desired = vm_pb2.DESIRED_STATE_RUNNING
        order.intent.generation = 1
        order.placement.host_id, order.placement.epoch = host_id, epoch
        return order

    def want(self, vm_id: int, desired: vm_pb2.DesiredState, *, host_id: int = 1, is_hard: bool = False) -> None:
        """Changes the desired state of a VM, as a user's verb does."""
        order = VmOrder()
        order.CopyFrom(self.orders[host_id, vm_id])
        order.intent.desired, order.intent.is_hard = desired, is_hard
        order.intent.generation += 1
        order.is_erase = desired == vm_pb2.DESIRED_STATE_TERMINATED
        self.send(order)

    def move(self, vm_id: int, host_id: int, target: int) -> None:
        """Places a VM elsewhere: the former host is to erase it, the other one to run it."""
        order = VmOrder()
        order.CopyFrom(self.orders[host_id, vm_id])
        erase = VmOrder()
        erase.CopyFrom(order)
        erase.is_erase = True
        order.host_id = order.placement.host_id = target
        order.epoch = order.placement.epoch = order.epoch + 1
        self.send(erase)
        self.send(order)

    def send(self, *orders: VmOrder) -> None:
        """Gives orders; to hosts that are not synced they go with the sync."""
        due: dict[int, list[VmOrder]] = {}
        for order in orders:
            self.orders[order.host_id, order.vm_id] = order
            stream = self.stream_of(order.host_id)
            if stream is not None and order.host_id in stream.synced:
                due.setdefault(id(stream), []).append(order)
        for stream in self.streams:
            if id(stream) in due:
                stream.out.put_nowait(ConnectResponse(orders=[self._full(order) for order in due[id(stream)]]))

    def forget(self, vm_id: int, host_id: int = 1) -> None:
        """The VM is no longer known: what is of it is an orphan."""
        del self.orders[host_id, vm_id]
        self.statuses.pop((host_id, vm_id), None)

    def drop(self) -> None:
        """Ends all streams."""
        for stream in self.streams:
            stream.out.put_nowait(None)

    async def has_streams(self, hellos: int) -> None:
        """Returns when so many streams have been opened and the last one is there."""
        await eventually(lambda: len(self.hellos) == hellos and self.streams, what="a stream is opened")

    def release_acks(self) -> None:
        """Sends the answers that were held back, and holds no more."""
        self.holds_acks = False
        for stream, ack in self._held:
            stream.out.put_nowait(ConnectResponse(acks=[ack]))
        self._held.clear()

    def stream_of(self, host_id: int) -> Stream | None:
        """The stream that carries a host."""
        return next((stream for stream in self.streams if host_id in stream.hosts()), None)

    def phase(self, vm_id: int, host_id: int = 1) -> str:
        """The phase of a VM as the store has it, "" where it has none."""
        status = self.statuses.get((host_id, vm_id))
        return VmPhase.Name(status.phase).removeprefix("VM_PHASE_") if status is not None else ""

    def all_phases(self) -> list[str]:
        """The phases of all VMs as the store has them."""
        return [self.phase(vm_id, host_id) for host_id, vm_id in self.statuses]

    def phases_of(self, vm_id: int, host_id: int = 1) -> list[str]:
        """All phases of a VM that were stored."""
        return [phase for host, vm, phase in self.phases if (host, vm) == (host_id, vm_id)]

    def open_tunnel(self, vm_id: int, kind: TunnelKind, *, host_id: int = 1, max_bytes: int = 0) -> str:
        """Orders a tunnel; returns its ticket, the name of its queues."""
        ticket = f"ticket-{len(self.tunnels)}"
        self.tunnels[ticket], self.typed[ticket] = asyncio.Queue(), asyncio.Queue()
        order = TunnelOrder(
            host_id=host_id, vm_id=vm_id, uid=vm_uid(vm_id), address=self.address, ticket=ticket, kind=kind,
            max_bytes=max_bytes,
        )  # fmt: skip
        stream = self.stream_of(host_id)
        assert stream is not None, f"host {host_id} is not connected"
        stream.out.put_nowait(ConnectResponse(tunnels=[order]))
        return ticket

    # The service

    async def Join(self, request: JoinRequest, context: Any) -> JoinResponse:  # noqa: N802  the contract's name
        """Tokens are spent."""
        found = self.join_tokens.pop(request.join_token, None)
        if found is None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the join token is wrong, spent or has expired")
            raise AssertionError("abort raises")
        host_id, name = found
        return JoinResponse(
            host_id=host_id, host_uid=f"host-{host_id}", name=name, secret=f"secret-{host_id}", cloud_uid=CLOUD_UID
        )

    async def Connect(  # type: ignore[override]  # noqa: N802  both forms of a streaming method are gRPC's
        self, request_iterator: AsyncIterator[ConnectRequest], context: Any
    ) -> None:
        """Reads in one task, writes in this one."""
        first = await anext(aiter(request_iterator))
        stream = Stream(first.hello)
        self.hellos.append(first.hello)
        welcome = Welcome(
            cloud_uid=CLOUD_UID, heartbeat_interval_s=1, refused_hosts=self.refused_hosts, datastores=self.datastores
        )
        await context.write(ConnectResponse(welcome=welcome))
        self.streams.append(stream)
        reading = asyncio.create_task(self._read(stream, request_iterator))
        try:
            while (response := await stream.out.get()) is not None:
                await context.write(response)
        finally:
            self.streams.remove(stream)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def OpenTunnel(  # type: ignore[override]  # noqa: N802
        self, request_iterator: AsyncIterator[OpenTunnelRequest], context: Any
    ) -> None:
        """Joins the stream to the queues of its ticket."""
        ticket = dict(context.invocation_metadata())["moln-ticket"]
        arrived, typed = self.tunnels[ticket], self.typed[ticket]

        async def read() -> None:
            async for piece in request_iterator:
                arrived.put_nowait(piece)
            arrived.put_nowait(None)
            typed.put_nowait(None)

        reading = asyncio.create_task(read())
        try:
            while (piece := await typed.get()) is not None:
                await context.write(piece)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    # Parts

    async def _read(self, stream: Stream, requests: AsyncIterator[ConnectRequest]) -> None:
        async for request in requests:
            self._receive(stream, request)
        stream.out.put_nowait(None)

    def _receive(self, stream: Stream, request: ConnectRequest) -> None:
        if request.heartbeat and not self.holds_heartbeats:
            stream.out.put_nowait(ConnectResponse(heartbeat_ack=request.heartbeat))
        acks = [self._judge(stream, report) for report in request.reports]
        if self.holds_acks:
            self._held += [(stream, ack) for ack in acks]
        elif acks:
            stream.out.put_nowait(ConnectResponse(acks=acks))
        for host in request.hosts:
            self.host_reports[host.host_id] = host
            if host.HasField("inventory"):
                self.inventories[host.host_id] = host.inventory
        for host_id in request.synced_host_ids:
            self._sync(stream, host_id)

    def _sync(self, stream: Stream, host_id: int) -> None:
        stream.synced.add(host_id)
        orders = [order for (host, _), order in self.orders.items() if host == host_id]
        complete = HostOrders(host_id=host_id, vm_ids=[order.vm_id for order in orders])
        stream.out.put_nowait(ConnectResponse(orders=[self._full(order) for order in orders], complete=[complete]))

    def _full(self, order: VmOrder) -> VmOrder:
        full = VmOrder()
        full.CopyFrom(order)
        status = self.statuses.get((order.host_id, order.vm_id))
        if status is not None:
            full.status.CopyFrom(status)
        return full

    def _judge(self, stream: Stream, report: VmReport) -> ReportAck:
        place = report.status.host_id, report.vm_id
        self.reports.append(report)
        self.on_report(report)
        if place[0] not in stream.synced:
            stream.reported.add(place)
        reason = self.refuse.get(report.vm_id, "") or self._store(place, report)
        return ReportAck(
            host_id=place[0], vm_id=place[1], sequence=report.sequence, is_stored=not reason, reason=reason
        )

    def _store(self, place: Place, report: VmReport) -> str:
        """Stores the report as the real gateway does; returns why not."""
        order, stored = self.orders.get(place), self.statuses.get(place)
        if report.is_gone:
            if stored is not None and stored.epoch <= report.status.epoch:
                del self.statuses[place]
                self.phases.append((*place, "GONE"))
                if order is not None and order.is_erase:
                    del self.orders[place]
            return ""
        if order is None or order.uid != report.status.uid:
            return "VM_NOT_FOUND"
        if report.is_claim:
            if order.epoch != report.status.epoch or order.is_erase:
                return "EPOCH_PAST"
            self.claims.append(report.status)
        elif stored is None or stored.epoch != report.status.epoch:
            return "EPOCH_PAST"
        if stored is None or stored.phase != report.status.phase or report.is_claim:
            self.phases.append((*place, VmPhase.Name(report.status.phase).removeprefix("VM_PHASE_")))
        self.statuses[place] = report.status
        return ""


def _set(template: Any, name: str, value: Any) -> None:
    if isinstance(value, dict):
        getattr(template, name).update(value)
    elif isinstance(value, list):
        getattr(template, name).extend(value)
    else:
        setattr(template, name, value)
