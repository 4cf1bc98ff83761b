"""Who may call what: one row for every RPC. A method without a row is refused (and fails the tests). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class Access(Enum):
    """Who may call a method. Whether he may see the object is the use case's to say."""

    OPEN = "anyone, without credentials"
    USER = "every user"
    ADMIN = "administrators"
    NODE = "nodes, who prove themselves in the call"


_U, _A, _N, _O = Access.USER, Access.ADMIN, Access.NODE, Access.OPEN

_ROWS: Mapping[str, Mapping[str, Access]] = {
    "moln.compute.v1.VmService": {
        "CreateVm": _U,
        "BatchCreateVms": _U,
        "ImportVm": _A,
        "GetVm": _U,
        "ListVms": _U,
        "UpdateVm": _U,
        "WatchVms": _U,
        "WaitVm": _U,
        "HoldVm": _U,
        "ReleaseVm": _U,
        "PoweroffVm": _U,
        "ResumeVm": _U,
        "RebootVm": _U,
        "SuspendVm": _U,
        "StopVm": _U,
        "UndeployVm": _U,
        "TerminateVm": _U,
        "MigrateVm": _U,
        "ReschedVm": _U,
        "DeployVm": _U,
        "RecoverVm": _U,
        "AttachVmDisk": _U,
        "DetachVmDisk": _U,
        "AttachVmNic": _U,
        "DetachVmNic": _U,
        "ResizeVm": _U,
        "ResizeVmDisk": _U,
        "CreateVmSnapshot": _U,
        "RevertVmSnapshot": _U,
        "DeleteVmSnapshot": _U,
        "CreateVmDiskSnapshot": _U,
        "RevertVmDiskSnapshot": _U,
        "DeleteVmDiskSnapshot": _U,
        "SaveVmDisk": _U,
        "UpdateVmContext": _U,
        "GetVmOperation": _U,
        "WaitVmOperation": _U,
        "CancelVmOperation": _U,
        "ScheduleVmVerb": _U,
        "UnscheduleVmVerb": _U,
        "ConsoleVm": _U,
        "GetVmConsoleLog": _U,
        "ConnectVmScreen": _U,
        "TakeVmScreenshot": _U,
        "PingVmAgent": _U,
        "FreezeVmFilesystems": _U,
        "ThawVmFilesystems": _U,
        "ExecVm": _U,
    },
    "moln.compute.v1.TemplateService": {
        "CreateTemplate": _U,
        "GetTemplate": _U,
        "ListTemplates": _U,
        "UpdateTemplate": _U,
        "DeleteTemplate": _U,
        "InstantiateTemplate": _U,
    },
    "moln.compute.v1.HostService": {
        "CreateHost": _A,
        "BatchCreateHosts": _A,
        "CreateJoinToken": _A,
        "GetHost": _A,
        "ListHosts": _A,
        "WatchHosts": _A,
        "UpdateHost": _A,
        "EnableHost": _A,
        "DisableHost": _A,
        "DrainHost": _A,
        "MaintainHost": _A,
        "SetHostOffline": _A,
        "FenceHost": _A,
        "ListHostGuests": _A,
        "PowerOffHost": _A,
        "PowerOnHost": _A,
        "DeleteHost": _A,
    },
    "moln.compute.v1.ClusterService": {
        "CreateCluster": _A,
        "GetCluster": _U,
        "ListClusters": _U,
        "UpdateCluster": _A,
        "DeleteCluster": _A,
        "AddHostToCluster": _A,
        "RemoveHostFromCluster": _A,
    },
    "moln.iam.v1.UserService": {
        "CreateUser": _A,
        "GetUser": _U,
        "ListUsers": _U,
        "UpdateUser": _A,
        "CreateToken": _U,
        "SetPassword": _U,
        "DeleteUser": _A,
        "WhoAmI": _U,
    },
    "moln.operations.v1.OperationsService": {
        "GetStatus": _U,
        "ListEvents": _U,
        "WatchEvents": _U,
        "UpdateCloud": _A,
        "GetVmHistory": _U,
        "ListAccountingRecords": _U,
    },
    "moln.operations.v1.MonitoringService": {
        "ListHostUsages": _A,
        "ListVmUsages": _U,
        "GetVmUsageHistory": _U,
        "GetHostUsageHistory": _A,
        "WatchTop": _U,
    },
    "moln.image.v1.ImageService": {
        "CreateImage": _U,
        "UploadImage": _U,
        "GetImage": _U,
        "ListImages": _U,
        "UpdateImage": _U,
        "DeleteImage": _U,
    },
    "moln.image.v1.DatastoreService": {
        "CreateDatastore": _A,
        "GetDatastore": _U,
        "ListDatastores": _U,
        "DeleteDatastore": _A,
    },
    "moln.network.v1.NetworkService": {
        "CreateNetwork": _U,
        "GetNetwork": _U,
        "ListNetworks": _U,
        "UpdateNetwork": _U,
        "DeleteNetwork": _U,
        "ListLeases": _U,
    },
    "moln.scheduler.v1.SchedulerService": {
        "ExplainVm": _U,
        "CheckExpression": _U,
    },
    "moln.node.v1.NodeService": {
        "Join": _N,
        "Connect": _N,
        "OpenTunnel": _N,
    },
    "grpc.health.v1.Health": {"Check": _O, "List": _O, "Watch": _O},
    "grpc.reflection.v1alpha.ServerReflection": {"ServerReflectionInfo": _O},
    "grpc.channelz.v1.Channelz": {
        "GetTopChannels": _A,
        "GetServers": _A,
        "GetServer": _A,
        "GetServerSockets": _A,
        "GetChannel": _A,
        "GetSubchannel": _A,
        "GetSocket": _A,
    },
}

ACCESS: Mapping[str, Access] = {
    f"/{service}/{method}": access for service, methods in _ROWS.items() for method, access in methods.items()
}
"""Full method path → who may call it."""
