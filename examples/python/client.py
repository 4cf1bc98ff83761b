"""A client of moln whose stubs are generated from protos/: lists the hosts, creates a VM, waits until it runs, prints
it, and terminates it. It needs nothing of moln but the contract, an address and a token.
"""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from pathlib import Path

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from moln.compute.v1.host_pb2 import HostState
from moln.compute.v1.host_service_pb2 import ListHostsRequest
from moln.compute.v1.host_service_pb2_grpc import HostServiceStub
from moln.compute.v1.template_pb2 import VmTemplate
from moln.compute.v1.vm_pb2 import Vm, VmState
from moln.compute.v1.vm_service_pb2 import CreateVmRequest, TerminateVmRequest, WaitVmRequest
from moln.compute.v1.vm_service_pb2_grpc import VmServiceStub

TOKEN_FILE = Path(__file__).resolve().parents[2] / ".moln" / "api" / "admin.token"


class Cloud:
    """The calls that this example makes, each with the token."""

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self._hosts = HostServiceStub(channel)
        self._vms = VmServiceStub(channel)
        self._metadata = (("authorization", f"Bearer {token}"),)

    async def list_hosts(self) -> None:
        """Prints one line for each host."""
        reply = await self._hosts.ListHosts(ListHostsRequest(), metadata=self._metadata)
        for host in reply.hosts:
            view = host.view
            print(
                f"host {host.id} {host.spec.name} {HostState.Name(view.state)}: {view.vms} VMs, "
                f"{view.memory_mib_used} of {view.memory_mib_total} MiB used"
            )

    async def run_one_vm(self) -> None:
        """Creates a VM, waits until it runs, prints it, and terminates it whatever happened before."""
        template = VmTemplate(vcpus=1, memory_mib=128, labels={"example": "python"})
        # A repeated call with the same request id answers the first result: it is safe to retry.
        request = CreateVmRequest(name="from-python", request_id=str(uuid.uuid4()), template=template)
        created = await self._vms.CreateVm(request, metadata=self._metadata)
        try:
            vm = await self._wait(created.id, VmState.VM_STATE_RUNNING)
            print(f"vm {vm.id} {vm.spec.name} {VmState.Name(vm.view.state)} on {vm.view.host}, address {vm.view.ipv4}")
        finally:
            await self._terminate(created.id)

    async def _terminate(self, vm_id: int) -> None:
        """Ends a VM for good and returns when nothing of it is left."""
        await self._vms.TerminateVm(TerminateVmRequest(id=vm_id, is_hard=True), metadata=self._metadata)
        try:
            await self._wait(vm_id, VmState.VM_STATE_DONE)
        except grpc.aio.AioRpcError as err:
            if err.code() is not grpc.StatusCode.NOT_FOUND:  # a VM that is gone already is not found
                raise
        print(f"vm {vm_id} is gone")

    async def _wait(self, vm_id: int, state: VmState) -> Vm:
        request = WaitVmRequest(id=vm_id, state=state, timeout=Duration(seconds=60))
        return await self._vms.WaitVm(request, metadata=self._metadata)


def connect(endpoint: str) -> grpc.aio.Channel:
    """Dials the cloud: by TLS where MOLN_CA_FILE names the certificate of its authority, else in clear (loopback)."""
    authority = os.environ.get("MOLN_CA_FILE")
    if authority is None:
        return grpc.aio.insecure_channel(endpoint)
    return grpc.aio.secure_channel(endpoint, grpc.ssl_channel_credentials(Path(authority).read_bytes()))


def explain(error: grpc.aio.AioRpcError) -> str:
    """What went wrong; moln's errors carry a reason of a closed list, which programs may test for."""
    info = ErrorInfo()
    details = (value for key, value in error.trailing_metadata() or () if key == "grpc-status-details-bin")
    for detail in Status.FromString(next(details, b"")).details:
        if detail.Unpack(info):
            return f"{error.details()} ({info.reason})"
    return f"{error.code().name}: {error.details()}"


async def main() -> None:
    """Reads the settings that the `moln` command reads too, and runs the example."""
    token = Path(os.environ.get("MOLN_TOKEN_FILE", TOKEN_FILE)).read_text().strip()
    async with connect(os.environ.get("MOLN_ENDPOINT", "127.0.0.1:2632")) as channel:
        cloud = Cloud(channel, token)
        await cloud.list_hosts()
        await cloud.run_one_vm()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except grpc.aio.AioRpcError as err:
        sys.exit(explain(err))
    except OSError as err:
        sys.exit(str(err))
