"""Guests of others on a host: asked of its node by administrators, and by nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from moln.compute.v1 import host_pb2, host_service_pb2
from moln.node.v1 import node_service_pb2 as node_pb
from tests.integration.api.agent import Agent
from tests.integration.api.conftest import Nodes
from tests.integration.api.running import Client, Clients, refused
from tests.support.eventually import eventually

Request = host_service_pb2.ListHostGuestsRequest


@pytest.fixture
async def agent(nodes: Nodes) -> AsyncIterator[Agent]:
    """The agent of one host."""
    async with await nodes.agent() as connected:
        await connected.sync()
        yield connected


async def answered(agent: Agent, call: Any, data: bytes = b"", **refusal: str) -> Any:
    """What a call answers when the node says this."""
    asking = asyncio.ensure_future(call)
    await eventually(lambda: agent.tunnels, what="a tunnel is asked for")
    node = await agent.open_tunnel(agent.tunnels[0])
    await node.write(data, **refusal)
    await node.done()
    results = await asyncio.gather(asking, return_exceptions=True)
    await node.close()
    return results[0]


async def test_the_nodes_list_is_the_answer(admin: Client, agent: Agent) -> None:
    guests = node_pb.ForeignGuests(guests=[host_pb2.ForeignGuest(name="legacy", vcpus=2)], is_truncated=True)
    found = await answered(agent, admin.hosts.ListHostGuests(Request(id=1)), guests.SerializeToString())
    assert [(guest.name, guest.vcpus) for guest in found.guests] == [("legacy", 2)]
    assert found.is_truncated
    order = agent.tunnels[0]
    assert (order.kind, order.host_id, order.vm_id, order.uid) == (node_pb.TUNNEL_KIND_GUESTS, 1, 0, "")


async def test_a_driver_without_guests_of_others_says_so(admin: Client, agent: Agent) -> None:
    with refused("CAPABILITY", words="no guests but"):
        raise await answered(
            agent, admin.hosts.ListHostGuests(Request(id=1)), reason="CAPABILITY", message="no guests but moln's own"
        )


async def test_only_administrators_may_ask_and_the_host_must_be_there_and_heard(
    clients: Clients, admin: Client, nodes: Nodes
) -> None:
    await nodes.hello("node-1")
    anna = await clients.user("anna")
    with refused("ROLE_MISSING"):
        await anna.hosts.ListHostGuests(Request(id=1))
    with refused("HOST_NOT_FOUND"):
        await admin.hosts.ListHostGuests(Request(id=99))
    with refused("HOST_SILENT", words="moln host show node-1"):
        await admin.hosts.ListHostGuests(Request(id=1))
