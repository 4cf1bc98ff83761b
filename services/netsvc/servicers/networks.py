"""NetworkService. Authenticated and authorised by the api; answered on the leader, reads on a standby too."""

from __future__ import annotations

from moln.network.v1 import network_service_pb2 as pb
from moln.network.v1 import network_service_pb2_grpc
from moln.network.v1.network_pb2 import Network
from services.common.resources.front import Front
from services.netsvc.usecases.networks import Networks


class NetworkServicer(network_service_pb2_grpc.NetworkServiceServicer):
    """One line per RPC."""

    def __init__(self, front: Front, networks: Networks) -> None:
        self._front = front
        self._networks = networks

    async def CreateNetwork(self, request: pb.CreateNetworkRequest, context: object) -> Network:
        caller, leadership = await self._front.writer()
        async with self._front.one_at_a_time():
            return await self._networks.create(request, caller, leadership)

    async def GetNetwork(self, request: pb.GetNetworkRequest, context: object) -> Network:
        return self._networks.get(request.id, await self._front.reader())

    async def ListNetworks(self, request: pb.ListNetworksRequest, context: object) -> pb.ListNetworksResponse:
        return self._networks.list(request, await self._front.reader())

    async def UpdateNetwork(self, request: pb.UpdateNetworkRequest, context: object) -> Network:
        caller, leadership = await self._front.writer()
        async with self._front.one_at_a_time():
            return await self._networks.update(request, caller, leadership)

    async def DeleteNetwork(self, request: pb.DeleteNetworkRequest, context: object) -> pb.DeleteNetworkResponse:
        caller, leadership = await self._front.writer()
        async with self._front.one_at_a_time():
            await self._networks.delete(request.id, caller, leadership)
        return pb.DeleteNetworkResponse()

    async def ListLeases(self, request: pb.ListLeasesRequest, context: object) -> pb.ListLeasesResponse:
        return self._networks.leases(request, await self._front.reader())
