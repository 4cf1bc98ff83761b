"""The stream by itself: heartbeats that nobody acknowledges, gateways that end it, stopping anywhere."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from moln.node.v1.node_service_pb2 import ConnectRequest, ConnectResponse, Hello, HostHello, Welcome
from services.common.runtime import Background, Backoff, Loop
from services.hostagent.controllers.link import Link
from tests.support.eventually import eventually
from tests.support.gateway import FakeGateway


class Talk:
    """A session that counts, and says what it is given to say. Also the metrics of the link."""

    def __init__(self) -> None:
        self.opens = 0
        self.closes = 0
        self.received_count = 0
        self.to_say: list[ConnectRequest] = []

    def hello(self) -> Hello:
        return Hello(agent_id="a", hosts=[HostHello(host_id=1, secret="s", boot_id="b")])

    def opened(self, welcome: Welcome) -> None:
        self.opens += 1
        self.to_say.append(ConnectRequest(synced_host_ids=[1]))

    def received(self, response: ConnectResponse) -> None:
        self.received_count += 1

    def outgoing(self) -> ConnectRequest | None:
        return self.to_say.pop(0) if self.to_say else None

    def closed(self) -> None:
        self.closes += 1

    def connected(self, is_connected: bool) -> None: ...

    def sent(self, reports: int) -> None: ...

    def got(self, orders: int, acks: int) -> None: ...


def a_link(gateway: FakeGateway, talk: Talk, unheard_s: float = 30.0) -> Loop:
    link = Link([gateway.address], grpc.aio.insecure_channel, talk, talk, Backoff(0.01, 0.05), unheard_s=unheard_s)
    return Loop("link", link.step, interval=60)


async def test_a_gateway_that_acknowledges_no_heartbeat_is_left(gateway: FakeGateway) -> None:
    gateway.holds_heartbeats = True
    talk = Talk()
    async with Background() as background:
        background.start(a_link(gateway, talk, unheard_s=0.01).run(), name="link")
        await eventually(lambda: talk.opens >= 2)


async def test_a_stream_that_the_gateway_ends_is_opened_again(gateway: FakeGateway) -> None:
    talk = Talk()
    async with Background() as background:
        background.start(a_link(gateway, talk).run(), name="link")
        for number in range(1, 4):
            await gateway.has_streams(number)
            gateway.drop()
        await eventually(lambda: talk.opens >= 4)
    assert talk.closes == talk.opens


@pytest.mark.parametrize("turns", [0, 1, 3, 10, 30, 100])
async def test_it_stops_wherever_it_is(gateway: FakeGateway, turns: int) -> None:
    talk = Talk()
    async with asyncio.timeout(30), Background() as background:
        background.start(a_link(gateway, talk, unheard_s=0.001).run(), name="link")
        for _ in range(turns):
            await asyncio.sleep(0)
        if turns > 50:
            await eventually(lambda: gateway.streams)
            gateway.drop()
            gateway.drop()
    assert talk.closes == talk.opens
