"""Whom Prometheus scrapes: every process that says where, as its HTTP service discovery reads it."""

from __future__ import annotations

import json

from moln.compute.v1 import host_pb2
from services.api.index.cloud import CloudIndex

PATH = "/sd"


class ScrapeTargets:
    """The same from every process of the api, so that Prometheus may ask several of them and see no target twice."""

    def __init__(self, cloud: CloudIndex) -> None:
        self._cloud = cloud

    def document(self) -> bytes:
        """JSON: groups of targets with the labels `service` and, of an agent of one host, `node`."""
        groups = [(address, {"service": kind}) for kind, address in self._services()]
        for address, hosts in sorted(self._agents().items()):
            labels = {"service": "hostagent"}
            if len(hosts) == 1:
                labels["node"] = hosts[0]
            groups.append((address, labels))
        return json.dumps([{"targets": [address], "labels": labels} for address, labels in groups]).encode()

    def _services(self) -> list[tuple[str, str]]:
        records = (entry.value for entry in self._cloud.catalog.of_kind("process").values())
        return sorted({(record.kind, record.metrics_address) for record in records if record.metrics_address})

    def _agents(self) -> dict[str, list[str]]:
        """Hosts by the address of their agent; without those that are not to be monitored."""
        found: dict[str, list[str]] = {}
        for host in self._cloud.hosts.all():
            address = host.inventory.value.metrics_address if host.inventory is not None else ""
            if address and host.state() != host_pb2.HOST_STATE_OFFLINE:
                found.setdefault(address, []).append(host.name)
        return found
