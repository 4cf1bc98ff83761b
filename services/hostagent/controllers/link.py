"""The agent's one stream to a node gateway: dials, says hello, reads, writes, beats; a loop has it dial again.

It knows nothing of VMs: what is said is its `Session`'s. Writes gather while one is under way, so that load makes
larger messages and not more of them.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import grpc

from moln.node.v1.node_service_pb2 import ConnectRequest, ConnectResponse, Hello, Welcome
from moln.node.v1.node_service_pb2_grpc import NodeServiceStub
from services.common.obs.logs import get_logger
from services.common.runtime import Backoff
from services.hostagent.controllers.racing import until_one_ends

WELCOME_S = 10.0
UNHEARD_S = 30.0
"""So long without an acknowledged heartbeat, another gateway is tried."""
STEADY_S = 10.0
"""A stream that lasted that long starts the pauses anew."""

Dial = Callable[[str], grpc.aio.Channel]
if TYPE_CHECKING:  # the class takes no parameters at run time
    Stream = grpc.aio.StreamStreamCall[ConnectRequest, ConnectResponse]


class StreamLost(Exception):
    """The stream has ended, or must."""


class Session(Protocol):
    """What is said on the stream."""

    def hello(self) -> Hello:
        """Who the agent is now."""
        ...

    def opened(self, welcome: Welcome) -> None:
        """A stream is there; everything must be said anew."""
        ...

    def received(self, response: ConnectResponse) -> None:
        """The gateway has said something."""
        ...

    def outgoing(self) -> ConnectRequest | None:
        """The next thing to say, or None."""
        ...

    def closed(self) -> None:
        """The stream is gone."""
        ...


class LinkMetrics(Protocol):
    """What is counted of the stream."""

    def connected(self, is_connected: bool) -> None:
        """A stream is there, or gone."""
        ...

    def sent(self, reports: int) -> None:
        """A message with that many reports was sent."""
        ...

    def got(self, orders: int, acks: int) -> None:
        """A message with that many orders and answers came."""
        ...


class Link:
    """Keeps the stream. `addresses` are tried in turn, beginning anywhere. `acknowledged` is told when a heartbeat that
    has been acknowledged was sent, by `clock`."""

    def __init__(
        self,
        addresses: Sequence[str],
        dial: Dial,
        session: Session,
        metrics: LinkMetrics,
        backoff: Backoff | None = None,
        *,
        unheard_s: float = UNHEARD_S,
        acknowledged: Callable[[float], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._acknowledged, self._clock = acknowledged, clock
        self._sent: dict[int, float] = {}
        self._addresses, self._dial, self._session, self._metrics = list(addresses), dial, session, metrics
        self._backoff = backoff or Backoff(first=0.2, most=5.0)
        self._unheard_s = unheard_s
        self._wake = asyncio.Event()
        self._dropping = asyncio.Event()
        self._held_until = 0.0
        self._failures, self._turn = 0, random.randrange(len(self._addresses))
        self._heartbeat = 0
        self._heard = 0.0
        self._log = get_logger("link")
        self.is_connected = False

    def wake(self) -> None:
        """There is something to say."""
        self._wake.set()

    def drop(self, seconds: float) -> None:
        """Ends the stream, if there is one, and dials again after `seconds`: for the simulator's control file."""
        self._held_until = time.monotonic() + seconds
        self._dropping.set()

    async def step(self) -> float:
        """One stream, from dialling to its end; returns the seconds after which a loop should call again."""
        self._dropping.clear()
        address = self._addresses[self._turn % len(self._addresses)]
        self._turn += 1
        began = time.monotonic()
        cause = await self._converse(address)
        self._failures = 1 if time.monotonic() - began > STEADY_S else self._failures + 1
        pause = self._backoff.pause(self._failures)
        self._log.warning("stream to the gateway lost", address=address, cause=cause, pause_s=round(pause, 2))
        return max(pause, self._held_until - time.monotonic())

    async def _converse(self, address: str) -> str:
        """One stream from dialling to its end; returns why it ended."""
        try:
            async with self._dial(address) as channel:
                stream: Stream = NodeServiceStub(channel).Connect()
                try:
                    await self._speak(stream, address)
                finally:
                    self._left()
                    stream.cancel()
        except grpc.aio.AioRpcError as err:
            return f"{err.code().name}: {err.details()}"
        except (StreamLost, TimeoutError, asyncio.InvalidStateError) as err:
            return str(err) or type(err).__name__
        return "ended"

    async def _speak(self, stream: Stream, address: str) -> None:
        await stream.write(ConnectRequest(hello=self._session.hello()))
        async with asyncio.timeout(WELCOME_S):
            first = await _read(stream)
        self._log.info("stream to the gateway opened", address=address)
        self.is_connected, self._heard = True, time.monotonic()
        self._sent.clear()
        self._metrics.connected(True)
        self._session.opened(first.welcome)
        self._session.received(first)
        self._wake.set()
        interval = first.welcome.heartbeat_interval_s or 2
        parts = self._read(stream), self._write(stream), self._beat(interval), self._watch_drop()
        await until_one_ends(*parts, expected=(StreamLost, grpc.aio.AioRpcError, asyncio.InvalidStateError))

    def _left(self) -> None:
        if self.is_connected:
            self.is_connected = False
            self._metrics.connected(False)
            self._session.closed()

    async def _read(self, stream: Stream) -> None:
        while True:
            response = await _read(stream)
            if response.heartbeat_ack:
                self._heard = time.monotonic()
                self._take_ack(response.heartbeat_ack)
            self._metrics.got(len(response.orders), len(response.acks))
            self._session.received(response)

    async def _write(self, stream: Stream) -> None:
        beaten = 0
        while True:
            self._wake.clear()
            while (request := self._session.outgoing()) is not None:
                self._metrics.sent(len(request.reports))
                await stream.write(request)
            if beaten != self._heartbeat:
                beaten = self._heartbeat
                self._sent[beaten] = self._clock()
                await stream.write(ConnectRequest(heartbeat=beaten))
            await self._wake.wait()

    def _take_ack(self, number: int) -> None:
        """Tells when the heartbeat was sent, before it was written: what an acknowledgement proves is of that time."""
        sent = self._sent.get(number)
        self._sent = {later: when for later, when in self._sent.items() if later > number}
        if sent is not None:
            self._acknowledged(sent)

    async def _beat(self, interval: float) -> None:
        while True:
            self._heartbeat += 1
            self._wake.set()
            await asyncio.sleep(interval)
            if time.monotonic() - self._heard > self._unheard_s:
                raise StreamLost(f"no heartbeat was acknowledged for {self._unheard_s:g} s")

    async def _watch_drop(self) -> None:
        await self._dropping.wait()
        raise StreamLost("dropped by command")


async def _read(stream: Stream) -> ConnectResponse:
    response = await stream.read()
    if response is grpc.aio.EOF:
        raise StreamLost(f"the gateway ended it: {await stream.details() or (await stream.code()).name}")
    assert isinstance(response, ConnectResponse)  # noqa: S101  for the type checker
    return response
