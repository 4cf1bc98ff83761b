"""MonitoringService: check → use case → answer."""

from __future__ import annotations

from collections.abc import AsyncIterator

from moln.operations.v1 import monitoring_service_pb2, monitoring_service_pb2_grpc
from services.api.access.gate import caller_of_call
from services.api.usecases.usages import Usages
from services.common.rpc.call import Context


class MonitoringServicer(monitoring_service_pb2_grpc.MonitoringServiceServicer):
    """What hosts and VMs take."""

    def __init__(self, usages: Usages) -> None:
        self._usages = usages

    async def ListHostUsages(
        self, request: monitoring_service_pb2.ListHostUsagesRequest, context: Context
    ) -> monitoring_service_pb2.ListHostUsagesResponse:
        return await self._usages.list_hosts(request)

    async def ListVmUsages(
        self, request: monitoring_service_pb2.ListVmUsagesRequest, context: Context
    ) -> monitoring_service_pb2.ListVmUsagesResponse:
        return await self._usages.list_vms(request, caller_of_call())

    async def GetVmUsageHistory(
        self, request: monitoring_service_pb2.GetVmUsageHistoryRequest, context: Context
    ) -> monitoring_service_pb2.UsageHistory:
        return await self._usages.vm_history(request, caller_of_call())

    async def GetHostUsageHistory(
        self, request: monitoring_service_pb2.GetHostUsageHistoryRequest, context: Context
    ) -> monitoring_service_pb2.UsageHistory:
        return await self._usages.host_history(request)

    def WatchTop(
        self, request: monitoring_service_pb2.WatchTopRequest, context: Context
    ) -> AsyncIterator[monitoring_service_pb2.Top]:
        return self._usages.watch(request, caller_of_call())
