"""One agent's stream: what is to be sent to it, and who is on it. Holds no rules."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from moln.node.v1 import node_service_pb2
from services.api.core import compose

MAX_ORDERS = 500
_MAX_HEARTBEATS = 64


class HostLink:
    """One host on a stream."""

    __slots__ = (
        "actor",
        "announced",
        "boot_id",
        "connection",
        "host_id",
        "is_synced",
        "name",
        "ordered",
        "orphans",
        "self_fence_s",
        "uid",
    )

    def __init__(
        self, connection: AgentConnection, host_id: int, uid: str, name: str, boot_id: str, self_fence_s: int = 0
    ) -> None:
        self.connection = connection
        self.host_id = host_id
        self.uid = uid
        self.name = name
        self.boot_id = boot_id
        self.self_fence_s = self_fence_s
        self.actor = f"<node {name}>"
        self.announced = 0
        self.is_synced = False
        self.ordered: dict[str, str] = {}
        self.orphans: tuple[str, ...] = ()


class AgentConnection:
    """One stream of an agent. Others mark what has changed; the stream's sender takes it from here."""

    def __init__(self, agent_id: str) -> None:
        self.agent_id = agent_id
        self.links: dict[int, HostLink] = {}
        self.heard = time.monotonic()
        self.is_closed = False
        self.wake = asyncio.Event()
        self.dirty: dict[tuple[int, str], None] = {}
        self.acks: list[bytes] = []
        self.completing: list[int] = []
        self.tunnels: list[bytes] = []
        self.heartbeats: deque[tuple[int, float]] = deque(maxlen=_MAX_HEARTBEATS)
        self.heartbeat_ack = 0

    def mark(self, host_id: int, key_id: str) -> None:
        """An order of this VM for this host is due, or has become void."""
        self.dirty[(host_id, key_id)] = None
        self.wake.set()

    def ack(self, host_id: int, vm_id: int, sequence: int, reason: str) -> None:
        """Answers a report; an empty reason says that it is stored."""
        self.acks.append(
            node_service_pb2.ReportAck(
                host_id=host_id, vm_id=vm_id, sequence=sequence, is_stored=not reason, reason=reason
            ).SerializeToString()
        )
        self.wake.set()

    def open_tunnel(self, order: node_service_pb2.TunnelOrder) -> None:
        """Asks the agent to dial a tunnel."""
        self.tunnels.append(order.SerializeToString())
        self.wake.set()

    def heartbeat_seen(self, number: int) -> None:
        """A heartbeat came in; it is acknowledged after the next tick of the store that began later."""
        self.heartbeats.append((number, time.time()))

    def tick(self, began: float) -> None:
        """The store was heard: a write that began at this time (Unix seconds) has come back."""
        while self.heartbeats and self.heartbeats[0][1] < began:
            self.heartbeat_ack = self.heartbeats.popleft()[0]
            self.wake.set()

    def close(self) -> None:
        """Ends the stream."""
        self.is_closed = True
        self.wake.set()

    def take_dirty(self) -> list[tuple[int, str]]:
        """At most MAX_ORDERS of what is due, oldest first."""
        taken = list(self.dirty)[:MAX_ORDERS]
        for place in taken:
            del self.dirty[place]
        return taken

    def message(self, orders: list[bytes]) -> bytes:
        """A serialised ConnectResponse of these orders and all else that waits; empty when there is nothing."""
        pieces: list[bytes] = []
        if self.heartbeat_ack:
            pieces.append(compose.number(2, self.heartbeat_ack))
            self.heartbeat_ack = 0
        pieces.append(compose.repeated(3, orders))
        if self.acks:
            pieces.append(compose.repeated(4, self.acks))
            self.acks = []
        if self.completing and not self.dirty:
            pieces.append(compose.repeated(5, map(self._complete, self.completing)))
            self.completing = []
        if self.tunnels:
            pieces.append(compose.repeated(6, self.tunnels))
            self.tunnels = []
        return b"".join(pieces)

    def _complete(self, host_id: int) -> bytes:
        link = self.links.get(host_id)
        vm_ids = sorted(int(key_id) for key_id in link.ordered) if link is not None else ()
        return node_service_pb2.HostOrders(host_id=host_id, vm_ids=vm_ids).SerializeToString()
