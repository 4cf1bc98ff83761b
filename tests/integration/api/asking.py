"""What tests of VMs on nodes ask and wait for."""

from __future__ import annotations

import grpc

from moln.compute.v1 import host_pb2, host_service_pb2, template_pb2, vm_pb2, vm_service_pb2
from tests.integration.api.running import Client
from tests.support.eventually import eventually


def request(**template: object) -> vm_service_pb2.CreateVmRequest:
    """A VM of 64 MiB."""
    shape = template_pb2.VmTemplate(memory_mib=64)
    shape.MergeFrom(template_pb2.VmTemplate(**template))  # type: ignore[arg-type]
    return vm_service_pb2.CreateVmRequest(template=shape)


async def view(client: Client, vm_id: int) -> vm_pb2.VmView:
    """The view of a VM as a client sees it."""
    vm: vm_pb2.Vm = await client.vms.GetVm(vm_service_pb2.GetVmRequest(id=vm_id))
    return vm.view


async def becomes(client: Client, vm_id: int, state: vm_pb2.VmState) -> vm_pb2.Vm:
    """Waits for a state."""
    vm: vm_pb2.Vm = await client.vms.WaitVm(vm_service_pb2.WaitVmRequest(id=vm_id, state=state))
    return vm


async def created(client: Client, wanted: vm_service_pb2.CreateVmRequest) -> vm_pb2.Vm:
    """A new VM, once the api has heard of the image and the network that it needs."""
    made: list[vm_pb2.Vm] = []

    async def is_made() -> bool:
        try:
            made.append(await client.vms.CreateVm(wanted))
        except grpc.aio.AioRpcError:
            return False
        return True

    await eventually(is_made, what="image and network are known")
    return made[0]


async def reason_is(client: Client, vm_id: int, reason: str) -> bool:
    """Whether the view of a VM has a reason."""
    return (await view(client, vm_id)).reason == reason


async def state_is(client: Client, host_id: int, state: host_pb2.HostState) -> bool:
    """Whether a host is in a state."""
    host: host_pb2.Host = await client.hosts.GetHost(host_service_pb2.GetHostRequest(id=host_id))
    return host.view.state == state
