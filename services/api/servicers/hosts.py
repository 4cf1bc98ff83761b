"""HostService: check → use case → answer."""

from __future__ import annotations

from collections.abc import AsyncIterator

from moln.compute.v1 import host_pb2, host_service_pb2, host_service_pb2_grpc
from services.api.access.gate import caller_of_call
from services.api.usecases.host_guests import HostGuests
from services.api.usecases.host_scripts import HostScripts
from services.api.usecases.host_watches import HostWatches
from services.api.usecases.hosts import Hosts
from services.api.usecases.lost_hosts import LostHosts
from services.common.rpc.call import Context

M = host_pb2.HostMode


class HostServicer(host_service_pb2_grpc.HostServiceServicer):
    """Hosts."""

    def __init__(
        self, hosts: Hosts, watches: HostWatches, scripts: HostScripts, guests: HostGuests, lost: LostHosts
    ) -> None:
        self._hosts = hosts
        self._guests = guests
        self._lost = lost
        self._scripts = scripts
        self._watches = watches

    async def CreateHost(
        self, request: host_service_pb2.CreateHostRequest, context: Context
    ) -> host_service_pb2.CreateHostResponse:
        return (await self._hosts.creation.create([request], caller_of_call()))[0]

    async def BatchCreateHosts(
        self, request: host_service_pb2.BatchCreateHostsRequest, context: Context
    ) -> host_service_pb2.BatchCreateHostsResponse:
        created = await self._hosts.creation.create(request.requests, caller_of_call())
        return host_service_pb2.BatchCreateHostsResponse(hosts=created)

    async def CreateJoinToken(
        self, request: host_service_pb2.CreateJoinTokenRequest, context: Context
    ) -> host_service_pb2.CreateJoinTokenResponse:
        return await self._hosts.creation.new_token(request.id)

    async def GetHost(self, request: host_service_pb2.GetHostRequest, context: Context) -> host_pb2.Host:
        return self._hosts.message(self._hosts.creation.existing(request.id))

    async def ListHosts(
        self, request: host_service_pb2.ListHostsRequest, context: Context
    ) -> host_service_pb2.ListHostsResponse:
        return self._hosts.list(request)

    def WatchHosts(
        self, request: host_service_pb2.WatchHostsRequest, context: Context
    ) -> AsyncIterator[host_service_pb2.WatchHostsResponse]:
        return self._watches.watch(request.from_revision)

    async def UpdateHost(self, request: host_service_pb2.UpdateHostRequest, context: Context) -> host_pb2.Host:
        return await self._hosts.update(request, caller_of_call())

    async def EnableHost(self, request: host_service_pb2.EnableHostRequest, context: Context) -> host_pb2.Host:
        return await self._hosts.set_mode(request.id, M.HOST_MODE_ENABLED, caller_of_call())

    async def DisableHost(self, request: host_service_pb2.DisableHostRequest, context: Context) -> host_pb2.Host:
        return await self._hosts.set_mode(request.id, M.HOST_MODE_DISABLED, caller_of_call())

    async def DrainHost(self, request: host_service_pb2.DrainHostRequest, context: Context) -> host_pb2.Host:
        return await self._hosts.set_mode(request.id, M.HOST_MODE_DRAINING, caller_of_call())

    async def MaintainHost(self, request: host_service_pb2.MaintainHostRequest, context: Context) -> host_pb2.Host:
        return await self._hosts.set_mode(request.id, M.HOST_MODE_MAINTENANCE, caller_of_call())

    async def SetHostOffline(self, request: host_service_pb2.SetHostOfflineRequest, context: Context) -> host_pb2.Host:
        return await self._hosts.set_mode(request.id, M.HOST_MODE_OFFLINE, caller_of_call())

    async def FenceHost(self, request: host_service_pb2.FenceHostRequest, context: Context) -> host_pb2.Host:
        return await self._scripts.fence(request.id, request.is_confirmed, caller_of_call())

    async def PowerOffHost(self, request: host_service_pb2.PowerOffHostRequest, context: Context) -> host_pb2.Host:
        return await self._scripts.power_off(request.id, request.is_forced, caller_of_call())

    async def PowerOnHost(self, request: host_service_pb2.PowerOnHostRequest, context: Context) -> host_pb2.Host:
        return await self._scripts.power_on(request.id, caller_of_call())

    async def ListHostGuests(
        self, request: host_service_pb2.ListHostGuestsRequest, context: Context
    ) -> host_service_pb2.ListHostGuestsResponse:
        return await self._guests.list(request.id)

    async def DeleteHost(
        self, request: host_service_pb2.DeleteHostRequest, context: Context
    ) -> host_service_pb2.DeleteHostResponse:
        await self._lost.delete(request.id, request.is_lost, caller_of_call())
        return host_service_pb2.DeleteHostResponse()
