"""VmService: a few lines per RPC, check → use case → answer. Answers are bytes, put together from stored parts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from moln.compute.v1 import vm_pb2, vm_service_pb2, vm_service_pb2_grpc
from services.api.access.gate import caller_of_call
from services.api.core.verbs import Verb
from services.api.usecases.consoles import Consoles
from services.api.usecases.insides import Insides
from services.api.usecases.operation_views import OperationViews
from services.api.usecases.schedules import Schedules
from services.api.usecases.vm_imports import VmImports
from services.api.usecases.vm_operations import VmOperations
from services.api.usecases.vm_watches import VmWatches
from services.api.usecases.vms import Vms
from services.api.usecases.waiting import Waiting
from services.common.domain.errors import invalid
from services.common.rpc.call import Context

MAX_WAIT_S = 3600.0
DEFAULT_WAIT_S = 60.0


class VmServicer(vm_service_pb2_grpc.VmServiceServicer):
    """VMs."""

    def __init__(
        self,
        vms: Vms,
        operations: VmOperations,
        views: OperationViews,
        schedules: Schedules,
        waiting: Waiting,
        watches: VmWatches,
        consoles: Consoles,
        insides: Insides,
        imports: VmImports,
    ) -> None:
        self._vms = vms
        self._operations = operations
        self._views = views
        self._schedules = schedules
        self._waiting = waiting
        self._watches = watches
        self._consoles = consoles
        self._insides = insides
        self._imports = imports

    async def CreateVm(self, request: vm_service_pb2.CreateVmRequest, context: Context) -> Any:
        return await self._vms.create(request, caller_of_call())

    async def BatchCreateVms(self, request: vm_service_pb2.BatchCreateVmsRequest, context: Context) -> Any:
        return await self._vms.batch_create(request.requests, caller_of_call())

    async def ImportVm(self, request: vm_service_pb2.ImportVmRequest, context: Context) -> Any:
        return await self._imports.import_guest(request, caller_of_call())

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
        return await self._waiting.wait(request.id, request.state, _seconds(request), caller_of_call())

    async def HoldVm(self, request: vm_service_pb2.HoldVmRequest, context: Context) -> Any:
        return await self._vms.change(Verb.HOLD, request, caller_of_call())

    async def ReleaseVm(self, request: vm_service_pb2.ReleaseVmRequest, context: Context) -> Any:
        return await self._vms.change(Verb.RELEASE, request, caller_of_call())

    async def PoweroffVm(self, request: vm_service_pb2.PoweroffVmRequest, context: Context) -> Any:
        return await self._vms.change(Verb.POWEROFF, request, caller_of_call())

    async def ResumeVm(self, request: vm_service_pb2.ResumeVmRequest, context: Context) -> Any:
        return await self._vms.change(Verb.RESUME, request, caller_of_call())

    async def RebootVm(self, request: vm_service_pb2.RebootVmRequest, context: Context) -> Any:
        return await self._operations.reboot(request, caller_of_call())

    async def SuspendVm(self, request: vm_service_pb2.SuspendVmRequest, context: Context) -> Any:
        return await self._vms.change(Verb.SUSPEND, request, caller_of_call())

    async def StopVm(self, request: vm_service_pb2.StopVmRequest, context: Context) -> Any:
        return await self._vms.change(Verb.STOP, request, caller_of_call())

    async def UndeployVm(self, request: vm_service_pb2.UndeployVmRequest, context: Context) -> Any:
        return await self._vms.change(Verb.UNDEPLOY, request, caller_of_call())

    async def TerminateVm(self, request: vm_service_pb2.TerminateVmRequest, context: Context) -> Any:
        return await self._vms.change(Verb.TERMINATE, request, caller_of_call())

    async def DeployVm(self, request: vm_service_pb2.DeployVmRequest, context: Context) -> Any:
        return await self._vms.change(Verb.DEPLOY, request, caller_of_call())

    async def RecoverVm(self, request: vm_service_pb2.RecoverVmRequest, context: Context) -> Any:
        return await self._views.recover(request, caller_of_call())

    async def MigrateVm(self, request: vm_service_pb2.MigrateVmRequest, context: Context) -> Any:
        return await self._operations.migrate(request, caller_of_call())

    async def ReschedVm(self, request: vm_service_pb2.ReschedVmRequest, context: Context) -> Any:
        return await self._operations.resched(request, caller_of_call())

    async def AttachVmDisk(self, request: vm_service_pb2.AttachVmDiskRequest, context: Context) -> Any:
        return await self._operations.attach_disk(request, caller_of_call())

    async def DetachVmDisk(self, request: vm_service_pb2.DetachVmDiskRequest, context: Context) -> Any:
        return await self._operations.detach_disk(request, caller_of_call())

    async def AttachVmNic(self, request: vm_service_pb2.AttachVmNicRequest, context: Context) -> Any:
        return await self._operations.attach_nic(request, caller_of_call())

    async def DetachVmNic(self, request: vm_service_pb2.DetachVmNicRequest, context: Context) -> Any:
        return await self._operations.detach_nic(request, caller_of_call())

    async def ResizeVm(self, request: vm_service_pb2.ResizeVmRequest, context: Context) -> Any:
        return await self._operations.resize(request, caller_of_call())

    async def ResizeVmDisk(self, request: vm_service_pb2.ResizeVmDiskRequest, context: Context) -> Any:
        return await self._operations.resize_disk(request, caller_of_call())

    async def CreateVmSnapshot(self, request: vm_service_pb2.CreateVmSnapshotRequest, context: Context) -> Any:
        return await self._operations.create_snapshot(request, caller_of_call())

    async def RevertVmSnapshot(self, request: vm_service_pb2.RevertVmSnapshotRequest, context: Context) -> Any:
        return await self._operations.revert_snapshot(request, caller_of_call())

    async def DeleteVmSnapshot(self, request: vm_service_pb2.DeleteVmSnapshotRequest, context: Context) -> Any:
        return await self._operations.delete_snapshot(request, caller_of_call())

    async def CreateVmDiskSnapshot(self, request: vm_service_pb2.CreateVmDiskSnapshotRequest, context: Context) -> Any:
        return await self._operations.create_disk_snapshot(request, caller_of_call())

    async def RevertVmDiskSnapshot(self, request: vm_service_pb2.RevertVmDiskSnapshotRequest, context: Context) -> Any:
        return await self._operations.revert_disk_snapshot(request, caller_of_call())

    async def DeleteVmDiskSnapshot(self, request: vm_service_pb2.DeleteVmDiskSnapshotRequest, context: Context) -> Any:
        return await self._operations.delete_disk_snapshot(request, caller_of_call())

    async def SaveVmDisk(self, request: vm_service_pb2.SaveVmDiskRequest, context: Context) -> Any:
        return await self._operations.save_disk(request, caller_of_call())

    async def UpdateVmContext(self, request: vm_service_pb2.UpdateVmContextRequest, context: Context) -> Any:
        return await self._operations.update_context(request, caller_of_call())

    async def GetVmOperation(self, request: vm_service_pb2.GetVmOperationRequest, context: Context) -> Any:
        return await self._views.get(request.id, request.operation_id, caller_of_call())

    async def WaitVmOperation(self, request: vm_service_pb2.WaitVmOperationRequest, context: Context) -> Any:
        return await self._views.wait(request.id, request.operation_id, _seconds(request), caller_of_call())

    async def CancelVmOperation(self, request: vm_service_pb2.CancelVmOperationRequest, context: Context) -> Any:
        return await self._views.cancel(request.id, request.operation_id, caller_of_call())

    async def ScheduleVmVerb(self, request: vm_service_pb2.ScheduleVmVerbRequest, context: Context) -> Any:
        return await self._schedules.add(request, caller_of_call())

    async def UnscheduleVmVerb(self, request: vm_service_pb2.UnscheduleVmVerbRequest, context: Context) -> Any:
        return await self._schedules.remove(request, caller_of_call())

    async def ConsoleVm(  # type: ignore[override]  # it writes to its context
        self, request_iterator: AsyncIterator[vm_service_pb2.ConsoleVmRequest], context: Context
    ) -> None:
        await self._consoles.connect(request_iterator, caller_of_call(), context.write)

    async def GetVmConsoleLog(self, request: vm_service_pb2.GetVmConsoleLogRequest, context: Context) -> Any:
        data = await self._consoles.log(request.id, request.max_bytes, caller_of_call())
        return vm_service_pb2.GetVmConsoleLogResponse(data=data)

    async def ConnectVmScreen(  # type: ignore[override]  # it writes to its context
        self, request_iterator: AsyncIterator[vm_service_pb2.ConnectVmScreenRequest], context: Context
    ) -> None:
        await self._insides.connect_screen(request_iterator, caller_of_call(), context.write)

    async def TakeVmScreenshot(self, request: vm_service_pb2.TakeVmScreenshotRequest, context: Context) -> Any:
        return await self._insides.screenshot(request.id, caller_of_call())

    async def PingVmAgent(self, request: vm_service_pb2.PingVmAgentRequest, context: Context) -> Any:
        return await self._insides.ping(request.id, caller_of_call())

    async def FreezeVmFilesystems(self, request: vm_service_pb2.FreezeVmFilesystemsRequest, context: Context) -> Any:
        return await self._insides.freeze(request, caller_of_call())

    async def ThawVmFilesystems(self, request: vm_service_pb2.ThawVmFilesystemsRequest, context: Context) -> Any:
        return await self._insides.thaw(request.id, caller_of_call())

    async def ExecVm(self, request: vm_service_pb2.ExecVmRequest, context: Context) -> Any:
        return await self._insides.exec(request, caller_of_call())


def _seconds(request: vm_service_pb2.WaitVmRequest | vm_service_pb2.WaitVmOperationRequest) -> float:
    """How long to wait."""
    seconds = request.timeout.ToNanoseconds() / 1e9 if request.HasField("timeout") else DEFAULT_WAIT_S
    if not 0 < seconds <= MAX_WAIT_S:
        raise invalid("timeout", f"takes more than 0 and at most {MAX_WAIT_S:g} s")
    return seconds
