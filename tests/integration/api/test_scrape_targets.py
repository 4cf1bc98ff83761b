"""Whom Prometheus is told to scrape."""

from __future__ import annotations

import json
from typing import Any

from moln.compute.v1 import host_pb2
from moln.node.v1 import node_service_pb2 as pb
from services.common.domain.keys import KEYS
from services.common.store import ProcessInfo, Store
from tests.integration.api.conftest import Nodes
from tests.integration.api.running import Running
from tests.support.etcd import EtcdServer
from tests.support.eventually import eventually


def groups(api: Running) -> list[Any]:
    return list(json.loads(api.run.pages["/sd"]()))


async def test_services_and_agents_that_say_where_are_targets(api: Running, nodes: Nodes, etcd: EtcdServer) -> None:
    info = ProcessInfo("scheduler", "10.0.0.1:1", metrics_address="10.0.0.1:9633")
    async with await Store.open(etcd.settings, keys=KEYS, process=info):
        one, two, three = [await nodes.hello(f"node-{number}") for number in (1, 2, 3)]
        async with nodes.again(one, two, three) as agent:
            for hello, address in ((one, "10.0.0.2:9640"), (two, "10.0.0.3:9640"), (three, "10.0.0.3:9640")):
                inventory = host_pb2.HostInventory(cpus=1, metrics_address=address)
                await agent.send(hosts=[pb.HostReport(host_id=hello.host_id, inventory=inventory)])
            wanted = [
                {"targets": ["10.0.0.1:9633"], "labels": {"service": "scheduler"}},
                {"targets": ["10.0.0.2:9640"], "labels": {"service": "hostagent", "node": "node-1"}},
                {"targets": ["10.0.0.3:9640"], "labels": {"service": "hostagent"}},
            ]
            await eventually(lambda: groups(api) == wanted, what="all are targets, each address once")
    await eventually(lambda: len(groups(api)) == 2, what="a process that has ended is none")
