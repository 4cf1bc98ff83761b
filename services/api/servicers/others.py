"""TemplateService, ClusterService, UserService, OperationsService: check → use case → answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from moln.compute.v1 import (
    cluster_pb2,
    cluster_service_pb2,
    cluster_service_pb2_grpc,
    host_pb2,
    template_pb2,
    template_service_pb2,
    template_service_pb2_grpc,
    vm_service_pb2,
)
from moln.iam.v1 import user_pb2, user_service_pb2, user_service_pb2_grpc
from moln.operations.v1 import operations_service_pb2, operations_service_pb2_grpc, records_pb2
from services.api.access.gate import caller_of_call
from services.api.usecases.accounting import Accounting
from services.api.usecases.cloud_status import CloudStatus
from services.api.usecases.clusters import Clusters
from services.api.usecases.events import Events
from services.api.usecases.hosts import Hosts
from services.api.usecases.templates import Templates
from services.api.usecases.users import Users
from services.api.usecases.vm_histories import VmHistories
from services.api.usecases.vms import Vms
from services.common.rpc.call import Context


class TemplateServicer(template_service_pb2_grpc.TemplateServiceServicer):
    """Templates."""

    def __init__(self, templates: Templates, vms: Vms) -> None:
        self._templates = templates
        self._vms = vms

    async def CreateTemplate(
        self, request: template_service_pb2.CreateTemplateRequest, context: Context
    ) -> template_pb2.Template:
        return await self._templates.create(request, caller_of_call())

    async def GetTemplate(
        self, request: template_service_pb2.GetTemplateRequest, context: Context
    ) -> template_pb2.Template:
        return self._templates.get(request.id, caller_of_call())

    async def ListTemplates(
        self, request: template_service_pb2.ListTemplatesRequest, context: Context
    ) -> template_service_pb2.ListTemplatesResponse:
        return self._templates.list(request, caller_of_call())

    async def UpdateTemplate(
        self, request: template_service_pb2.UpdateTemplateRequest, context: Context
    ) -> template_pb2.Template:
        return await self._templates.update(request, caller_of_call())

    async def DeleteTemplate(
        self, request: template_service_pb2.DeleteTemplateRequest, context: Context
    ) -> template_service_pb2.DeleteTemplateResponse:
        await self._templates.delete(request.id, caller_of_call())
        return template_service_pb2.DeleteTemplateResponse()

    async def InstantiateTemplate(
        self, request: template_service_pb2.InstantiateTemplateRequest, context: Context
    ) -> Any:
        wanted = vm_service_pb2.CreateVmRequest(
            name=request.name,
            template=request.overrides,
            template_id=request.id,
            request_id=request.request_id,
            validate_only=request.validate_only,
            is_held=request.is_held,
        )
        return await self._vms.create(wanted, caller_of_call())


class ClusterServicer(cluster_service_pb2_grpc.ClusterServiceServicer):
    """Clusters."""

    def __init__(self, clusters: Clusters, hosts: Hosts) -> None:
        self._clusters = clusters
        self._hosts = hosts

    async def CreateCluster(
        self, request: cluster_service_pb2.CreateClusterRequest, context: Context
    ) -> cluster_pb2.Cluster:
        return await self._clusters.create(request, caller_of_call())

    async def GetCluster(self, request: cluster_service_pb2.GetClusterRequest, context: Context) -> cluster_pb2.Cluster:
        return self._clusters.get(request.id)

    async def ListClusters(
        self, request: cluster_service_pb2.ListClustersRequest, context: Context
    ) -> cluster_service_pb2.ListClustersResponse:
        return self._clusters.list(request)

    async def UpdateCluster(
        self, request: cluster_service_pb2.UpdateClusterRequest, context: Context
    ) -> cluster_pb2.Cluster:
        return await self._clusters.update(request, caller_of_call())

    async def DeleteCluster(
        self, request: cluster_service_pb2.DeleteClusterRequest, context: Context
    ) -> cluster_service_pb2.DeleteClusterResponse:
        await self._clusters.delete(request.id)
        return cluster_service_pb2.DeleteClusterResponse()

    async def AddHostToCluster(
        self, request: cluster_service_pb2.AddHostToClusterRequest, context: Context
    ) -> host_pb2.Host:
        return await self._hosts.move(request.host_id, request.id, caller_of_call())

    async def RemoveHostFromCluster(
        self, request: cluster_service_pb2.RemoveHostFromClusterRequest, context: Context
    ) -> host_pb2.Host:
        return await self._hosts.leave(request.host_id, request.id, caller_of_call())


class UserServicer(user_service_pb2_grpc.UserServiceServicer):
    """Users."""

    def __init__(self, users: Users) -> None:
        self._users = users

    async def CreateUser(
        self, request: user_service_pb2.CreateUserRequest, context: Context
    ) -> user_service_pb2.CreateUserResponse:
        return await self._users.create(request, caller_of_call())

    async def GetUser(self, request: user_service_pb2.GetUserRequest, context: Context) -> user_pb2.User:
        return self._users.get(request.id, caller_of_call())

    async def ListUsers(
        self, request: user_service_pb2.ListUsersRequest, context: Context
    ) -> user_service_pb2.ListUsersResponse:
        return self._users.list(request, caller_of_call())

    async def UpdateUser(self, request: user_service_pb2.UpdateUserRequest, context: Context) -> user_pb2.User:
        return await self._users.update(request, caller_of_call())

    async def CreateToken(
        self, request: user_service_pb2.CreateTokenRequest, context: Context
    ) -> user_service_pb2.CreateTokenResponse:
        token = await self._users.new_token(request.id, request.is_sole, caller_of_call())
        return user_service_pb2.CreateTokenResponse(token=token)

    async def SetPassword(
        self, request: user_service_pb2.SetPasswordRequest, context: Context
    ) -> user_service_pb2.SetPasswordResponse:
        await self._users.set_password(request.id, request.password, caller_of_call())
        return user_service_pb2.SetPasswordResponse()

    async def DeleteUser(
        self, request: user_service_pb2.DeleteUserRequest, context: Context
    ) -> user_service_pb2.DeleteUserResponse:
        await self._users.delete(request.id, caller_of_call())
        return user_service_pb2.DeleteUserResponse()

    async def WhoAmI(self, request: user_service_pb2.WhoAmIRequest, context: Context) -> user_pb2.User:
        caller = caller_of_call()
        return self._users.get(caller.user_id, caller)


class OperationsServicer(operations_service_pb2_grpc.OperationsServiceServicer):
    """The cloud as a whole."""

    def __init__(self, status: CloudStatus, events: Events, histories: VmHistories, accounting: Accounting) -> None:
        self._status = status
        self._events = events
        self._histories = histories
        self._accounting = accounting

    async def GetStatus(
        self, request: operations_service_pb2.GetStatusRequest, context: Context
    ) -> operations_service_pb2.CloudStatus:
        return self._status.get(caller_of_call())

    async def ListEvents(
        self, request: operations_service_pb2.ListEventsRequest, context: Context
    ) -> operations_service_pb2.ListEventsResponse:
        return await self._events.list(request, caller_of_call())

    def WatchEvents(
        self, request: operations_service_pb2.WatchEventsRequest, context: Context
    ) -> AsyncIterator[operations_service_pb2.WatchEventsResponse]:
        return self._events.watch(request, caller_of_call())

    async def UpdateCloud(
        self, request: operations_service_pb2.UpdateCloudRequest, context: Context
    ) -> records_pb2.CloudRecord:
        return await self._status.update(request)

    async def GetVmHistory(
        self, request: operations_service_pb2.GetVmHistoryRequest, context: Context
    ) -> operations_service_pb2.VmHistory:
        return await self._histories.get(request.id, caller_of_call())

    async def ListAccountingRecords(
        self, request: operations_service_pb2.ListAccountingRecordsRequest, context: Context
    ) -> operations_service_pb2.ListAccountingRecordsResponse:
        return await self._accounting.list(request, caller_of_call())
