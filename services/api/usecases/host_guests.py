"""Guests on hosts that moln did not create, asked of the node as they are now."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from moln.compute.v1 import host_service_pb2
from moln.node.v1 import node_service_pb2 as node_pb
from services.api.index.cloud import CloudIndex
from services.api.nodes.tunnels import MAX_ANSWER_BYTES, Tunnels
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason

ANSWER_S = 75.0


class HostGuests:
    """Lists them. Who may is the access table's to say."""

    def __init__(self, cloud: CloudIndex, tunnels: Tunnels) -> None:
        self._cloud = cloud
        self._tunnels = tunnels

    async def list(self, host_id: int) -> host_service_pb2.ListHostGuestsResponse:
        """By name. Raises HOST_NOT_FOUND, HOST_SILENT, CAPABILITY."""
        host = self._cloud.hosts.get(host_id)
        if host is None:
            raise MolnError(Reason.HOST_NOT_FOUND, f"there is no host {host_id}; see: moln host list")
        opened = await self._tunnels.open_host(host_id, host.name, node_pb.TUNNEL_KIND_GUESTS, MAX_ANSWER_BYTES)
        data = await self._tunnels.read_all(*opened, ANSWER_S, f"host {host.name}")
        try:
            found = node_pb.ForeignGuests.FromString(data)
        except DecodeError as err:
            problem = f"host {host.name}: its answer is not one that this api understands; update both"
            raise MolnError(Reason.INTERNAL, problem) from err
        return host_service_pb2.ListHostGuestsResponse(guests=found.guests, is_truncated=found.is_truncated)
