"""Operations as the api takes them on and closes them, where no node has a word in it."""

from __future__ import annotations

from moln.compute.v1 import template_pb2, vm_pb2
from moln.compute.v1 import vm_service_pb2 as pb
from tests.integration.api.asking import becomes
from tests.integration.api.running import Client, Clients, refused
from tests.integration.api.world import World

OFF = template_pb2.VmTemplate(memory_mib=128, disks=[template_pb2.DiskTemplate(size_mib=16)], no_default_network=True)


async def off(client: Client, world: World) -> vm_pb2.Vm:
    """A VM that is off on a host of which nothing is heard."""
    made = await client.vms.CreateVm(pb.CreateVmRequest(template=OFF, is_held=True))
    await world.place(made.id, 1)
    return await becomes(client, made.id, vm_pb2.VM_STATE_POWERED_OFF)


async def test_a_disk_is_not_saved_by_a_name_that_its_owner_has_an_image_of(clients: Clients, world: World) -> None:
    anna = await clients.user("anna")
    vm = await off(anna, world)
    await world.image(7, "golden", owner_id=anna.user_id)
    await world.image(8, "silver", owner_id=anna.user_id + 1)
    vm = await anna.vms.UpdateVm(_description(vm, "both images are known when this is"))
    with refused("NAME_TAKEN", "image_name", "anna has an image golden already"):
        await anna.vms.SaveVmDisk(pb.SaveVmDiskRequest(id=vm.id, disk_id=0, image_name="golden"))
    asked = await anna.vms.SaveVmDisk(pb.SaveVmDiskRequest(id=vm.id, disk_id=0, image_name="silver"))
    assert asked.intent.background.parameters.image_name == "silver"


async def test_a_resize_that_failed_leaves_the_spec_as_it_was_with_who_had_made_it_so(
    clients: Clients, world: World
) -> None:
    anna = await clients.user("anna")
    vm = await off(anna, world)
    asked = await anna.vms.ResizeVm(pb.ResizeVmRequest(id=vm.id, size=vm_pb2.VmSize(memory_mib=256)))
    assert (asked.spec.template.memory_mib, asked.spec.cause.reason) == (256, "RESIZE")
    failed = await anna.vms.RecoverVm(pb.RecoverVmRequest(id=vm.id, action=pb.RECOVER_ACTION_FAILURE))
    assert failed.intent.last_operation.reason == "RECOVERED"
    assert failed.spec == vm.spec


async def test_who_changed_a_vm_while_it_was_resized_stays_named_when_that_fails(
    clients: Clients, world: World
) -> None:
    anna = await clients.user("anna")
    vm = await off(anna, world)
    await anna.vms.ResizeVm(pb.ResizeVmRequest(id=vm.id, size=vm_pb2.VmSize(memory_mib=256)))
    await anna.vms.UpdateVm(_description(vm, "new words"))
    failed = await anna.vms.RecoverVm(pb.RecoverVmRequest(id=vm.id, action=pb.RECOVER_ACTION_FAILURE))
    assert (failed.spec.template.memory_mib, failed.spec.template.description) == (128, "new words")
    assert failed.spec.cause.reason == "UPDATE"


def _description(vm: vm_pb2.Vm, words: str) -> pb.UpdateVmRequest:
    spec = vm_pb2.VmSpec(template=template_pb2.VmTemplate(description=words))
    request = pb.UpdateVmRequest(id=vm.id, spec=spec)
    request.update_mask.paths.append("template.description")
    return request
