"""The API of a stack under test, over one connection, patient while processes are being killed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import grpc

from moln.common.v1 import common_pb2
from moln.compute.v1 import (
    host_pb2,
    host_service_pb2,
    host_service_pb2_grpc,
    template_pb2,
    vm_pb2,
    vm_service_pb2,
    vm_service_pb2_grpc,
)
from moln.iam.v1 import user_service_pb2, user_service_pb2_grpc
from moln.network.v1 import network_pb2, network_service_pb2, network_service_pb2_grpc
from moln.operations.v1 import operations_service_pb2, operations_service_pb2_grpc
from tests.support.stack import Stack

T = TypeVar("T")
CALL_SECONDS = 20.0


class StackApi:
    """Calls that wait for the server. Reads raise AssertionError when it is away, so that `eventually` asks again."""

    def __init__(self, stack: Stack) -> None:
        self._metadata = stack.metadata
        self.channel = stack.channel()
        channel: Any = self.channel
        self._vms: Any = vm_service_pb2_grpc.VmServiceStub(channel)
        self._hosts: Any = host_service_pb2_grpc.HostServiceStub(channel)
        self._networks: Any = network_service_pb2_grpc.NetworkServiceStub(channel)
        self._users: Any = user_service_pb2_grpc.UserServiceStub(channel)
        self._operations: Any = operations_service_pb2_grpc.OperationsServiceStub(channel)

    def ask(self, method: str, request: object) -> Any:
        """A call of VmService, waiting for the server. Raises grpc.RpcError for a refusal."""
        call = getattr(self._vms, method)
        return call(request, metadata=self._metadata, timeout=CALL_SECONDS, wait_for_ready=True)

    def close(self) -> None:
        """Ends the connection."""
        self.channel.close()

    def create(self, template: template_pb2.VmTemplate, count: int) -> list[int]:
        """Creates VMs, all of which must succeed; returns their ids."""
        request = vm_service_pb2.BatchCreateVmsRequest(
            requests=[vm_service_pb2.CreateVmRequest(template=template)] * count
        )
        answer = self._vms.BatchCreateVms(request, metadata=self._metadata, wait_for_ready=True)
        failed = [result.failure.message for result in answer.results if result.HasField("failure")]
        assert not failed, failed[0]
        return [result.vm.id for result in answer.results]

    def terminate(self, ids: Sequence[int]) -> None:
        """Terminates VMs; the plug is pulled."""
        for vm_id in ids:
            request = vm_service_pb2.TerminateVmRequest(id=vm_id, is_hard=True)
            self._vms.TerminateVm(request, metadata=self._metadata, wait_for_ready=True)

    def count(self, state: str) -> int:
        """VMs in a state, `RUNNING` for example."""
        return int(self.status().vms.get(state, 0))

    def status(self) -> operations_service_pb2.CloudStatus:
        """The cloud at a glance."""
        return _answered(  # type: ignore[no-any-return]
            lambda: self._operations.GetStatus(
                operations_service_pb2.GetStatusRequest(), metadata=self._metadata, timeout=CALL_SECONDS
            )
        )

    def vms(self) -> list[vm_pb2.Vm]:
        """All VMs."""
        request = vm_service_pb2.ListVmsRequest(page_size=10_000)
        return list(_answered(lambda: self._vms.ListVms(request, metadata=self._metadata, timeout=CALL_SECONDS)).vms)

    def hosts(self) -> list[host_pb2.Host]:
        """All hosts."""
        request = host_service_pb2.ListHostsRequest()
        return list(_answered(lambda: self._hosts.ListHosts(request, metadata=self._metadata)).hosts)

    def leases(self) -> list[network_pb2.Lease]:
        """The leases of the default network."""
        network_id = self.status().cloud.default_network_id
        request = network_service_pb2.ListLeasesRequest(id=network_id, page_size=10_000)
        call = self._networks.ListLeases
        return list(_answered(lambda: call(request, metadata=self._metadata, timeout=CALL_SECONDS)).leases)

    def usage(self) -> common_pb2.Amounts:
        """What the caller's VMs take."""
        found: common_pb2.Amounts = _answered(
            lambda: self._users.WhoAmI(user_service_pb2.WhoAmIRequest(), metadata=self._metadata)
        ).usage
        return found


def _answered(call: Callable[[], T]) -> T:
    try:
        return call()
    except grpc.RpcError as err:
        raise AssertionError(f"the api does not answer: {err}") from err
