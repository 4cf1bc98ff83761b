"""VmService: a few lines per RPC, check → use case → answer. Answers are bytes, put together from stored parts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from moln.compute.v1 import vm_pb2, vm_service_pb2, vm_service_pb2_grpc
from services.api.access.gate import caller_of_call
from services.api.core.verbs import Verb
from services.api.usecases.consoles import Consoles
from services.api.usecases.vm_watches import VmWatches
from services.api.usecases.vms import Vms
from services.api.usecases.waiting import Waiting
from services.common.domain.errors import invalid
from services.common.rpc.call import Context

MAX_WAIT_S = 3600.0
DEFAULT_WAIT_S = 60.0


class VmServicer(vm_service_pb2_grpc.VmServiceServicer):
    """VMs."""

    def __init__(self, vms: Vms, waiting: Waiting, watches: VmWatches, consoles: Consoles) -> None:
        self._vms = vms
        self._waiting = waiting
        self._watches = watches
        self._consoles = consoles

    async def CreateVm(self, request: vm_service_pb2.CreateVmRequest, context: Context) -> Any:
        return await self._vms.create(request, caller_of_call())

    async def BatchCreateVms(self, request: vm_service_pb2.BatchCreateVmsRequest, context: Context) -> Any:
        return await self._vms.batch_create(request.requests, caller_of_call())

    async def GetVm(self, request: vm_service_pb2.GetVmRequest, context: Context) -> Any:
        return self._vms.get(request.id, caller_of_call())

    async def ListVms(self, request: vm_service_pb2.ListVmsRequest, context: Context) -> Any:
        return self._vms.list(request, caller_of_call())

    async def UpdateVm(self, request: vm_service_pb2.UpdateVmRequest, context: Context) -> Any:
        return await self._vms.update(request, caller_of_call())

    def WatchVms(self, request: vm_service_pb2.WatchVmsRequest, context: Context) -> Any:
        return self._watches.watch(request, caller_of_call())

    async def WaitVm(self, request: vm_service_pb2.WaitVmRequest, context: Context) -> Any:
        if request.state == vm_pb2.VM_STATE_UNSPECIFIED:
            raise invalid("state", "is required: the state to wait for, for example VM_STATE_RUNNING")
        seconds = request.timeout.ToNanoseconds() / 1e9 if request.HasField("timeout") else DEFAULT_WAIT_S
        if not 0 < seconds <= MAX_WAIT_S:
            raise invalid("timeout", f"takes more than 0 and at most {MAX_WAIT_S:g} s")
        return await self._waiting.wait(request.id, request.state, seconds, caller_of_call())

    async def HoldVm(self, request: vm_service_pb2.HoldVmRequest, context: Context) -> Any:
        return await self._vms.change(Verb.HOLD, request, caller_of_call())

    async def ReleaseVm(self, request: vm_service_pb2.ReleaseVmRequest, context: Context) -> Any:
        return await self._vms.change(Verb.RELEASE, request, caller_of_call())

    async def PoweroffVm(self, request: vm_service_pb2.PoweroffVmRequest, context: Context) -> Any:
        return await self._vms.change(Verb.POWEROFF, request, caller_of_call())

    async def ResumeVm(self, request: vm_service_pb2.ResumeVmRequest, context: Context) -> Any:
        return await self._vms.change(Verb.RESUME, request, caller_of_call())

    async def RebootVm(self, request: vm_service_pb2.RebootVmRequest, context: Context) -> Any:
        return await self._vms.change(Verb.REBOOT, request, caller_of_call())

    async def SuspendVm(self, request: vm_service_pb2.SuspendVmRequest, context: Context) -> Any:
        return await self._vms.change(Verb.SUSPEND, request, caller_of_call())

    async def StopVm(self, request: vm_service_pb2.StopVmRequest, context: Context) -> Any:
        return await self._vms.change(Verb.STOP, request, caller_of_call())

    async def UndeployVm(self, request: vm_service_pb2.UndeployVmRequest, context: Context) -> Any:
        return await self._vms.change(Verb.UNDEPLOY, request, caller_of_call())

    async def TerminateVm(self, request: vm_service_pb2.TerminateVmRequest, context: Context) -> Any:
        return await self._vms.change(Verb.TERMINATE, request, caller_of_call())

    async def MigrateVm(self, request: vm_service_pb2.MigrateVmRequest, context: Context) -> Any:
        return await self._vms.change(Verb.MIGRATE, request, caller_of_call())

    async def ConsoleVm(  # type: ignore[override]  # it writes to its context
        self, request_iterator: AsyncIterator[vm_service_pb2.ConsoleVmRequest], context: Context
    ) -> None:
        await self._consoles.connect(request_iterator, caller_of_call(), context.write)

    async def GetVmConsoleLog(self, request: vm_service_pb2.GetVmConsoleLogRequest, context: Context) -> Any:
        data = await self._consoles.log(request.id, request.max_bytes, caller_of_call())
        return vm_service_pb2.GetVmConsoleLogResponse(data=data)
