"""Volumes of VMs: given once their images are ready, explained where they are not, taken back at the end."""

from __future__ import annotations

from pathlib import Path

from moln.image.v1.image_pb2 import ImageSource
from services.common.store import Txn, key
from tests.integration.imagesvc.conftest import ERROR, READY, Cloud, Images, Start, qcow2, raw_disk, sha256
from tests.integration.imagesvc.web import Web
from tests.support.eventually import eventually
from tests.support.reigns import Running

MIB = 1 << 20


async def test_a_disk_comes_from_its_images_file(images: Images, cloud: Cloud, folder: Path, shelf: Path) -> None:
    data = await qcow2(folder)
    made = await images.upload("web", data)
    vm = await cloud.vm(made.id)
    await eventually(lambda: cloud.sources(vm))
    found = cloud.volumes(vm)
    assert found is not None
    disk = found.disks[0]
    assert disk.source == str(shelf / made.status.path)
    assert (disk.image_id, disk.image_uid, disk.datastore_id) == (made.id, made.spec.uid, 1)
    assert (disk.source_format, disk.sha256, disk.file_size_bytes) == ("qcow2", sha256(data), len(data))
    assert (disk.virtual_size_bytes, disk.format) == (8 * MIB, "qcow2")


async def test_a_disk_may_be_larger_than_its_image(images: Images, cloud: Cloud) -> None:
    made = await images.upload("web", raw_disk())
    vm = await cloud.vm(made.id, size_mib=50)
    await eventually(lambda: cloud.sources(vm))
    found = cloud.volumes(vm)
    assert found is not None
    assert found.disks[0].virtual_size_bytes == 50 * MIB


async def test_an_empty_disk_needs_no_image(imagesvc: Running, cloud: Cloud) -> None:
    vm, diskless = await cloud.vm(0, size_mib=20), await cloud.vm()
    await eventually(lambda: cloud.volumes(vm))
    found = cloud.volumes(vm)
    assert found is not None
    assert (found.reason, found.disks[0].virtual_size_bytes, found.disks[0].source) == ("", 20 * MIB, "")
    assert cloud.volumes(diskless) is None


async def test_a_vm_waits_for_an_image_that_is_on_its_way(images: Images, cloud: Cloud, web: Web) -> None:
    url, go = web.slow("/disk", raw_disk())
    made = await images.create("web", source=ImageSource.IMAGE_SOURCE_URL, location=url)
    vm = await cloud.vm(made.id)
    await eventually(lambda: cloud.reason(vm) == "IMAGE_NOT_READY")
    found = cloud.volumes(vm)
    assert found is not None
    assert "web is still being fetched" in found.message
    go.set()
    await eventually(lambda: cloud.sources(vm))


async def test_an_image_that_failed_or_is_gone_is_named(images: Images, cloud: Cloud, web: Web) -> None:
    made = await images.from_url("web", web.status("/x", 404))
    failed, nowhere = await cloud.vm(made.id), await cloud.vm(99)
    await eventually(lambda: cloud.reason(failed) == "IMAGE_NOT_READY")
    await eventually(lambda: cloud.reason(nowhere) == "IMAGE_NOT_FOUND")


async def test_a_file_that_vanishes_is_noticed_and_heals(images: Images, cloud: Cloud, shelf: Path) -> None:
    made = await images.upload("web", raw_disk())
    file = shelf / made.status.path
    file.rename(shelf / "elsewhere")
    vm = await cloud.vm(made.id)
    await eventually(lambda: cloud.reason(vm) == "IMAGE_NOT_READY")
    found = await images.get(made.id)
    assert (found.view.state, found.status.reason) == (ERROR, "IMAGE_VANISHED")
    assert str(file) in found.status.message
    (shelf / "elsewhere").rename(file)
    await eventually(lambda: cloud.sources(vm))
    assert (await images.get(made.id)).view.state == READY


async def test_a_file_that_was_cut_is_noticed(images: Images, cloud: Cloud, shelf: Path) -> None:
    made = await images.upload("web", raw_disk())
    (shelf / made.status.path).write_bytes(b"x")
    vm = await cloud.vm(made.id)
    await eventually(lambda: cloud.reason(vm) == "IMAGE_NOT_READY")
    assert "1 bytes instead of" in (await images.get(made.id)).status.message


async def test_volumes_stay_until_nothing_of_the_vm_is_on_a_node(images: Images, cloud: Cloud) -> None:
    made = await images.upload("web", raw_disk())
    vm = await cloud.vm(made.id)
    await eventually(lambda: cloud.sources(vm))
    await cloud.status(vm, is_there=True)
    await cloud.terminate(vm)
    other = await cloud.vm(made.id)
    await eventually(lambda: cloud.sources(other))
    assert cloud.sources(vm)
    await cloud.status(vm, is_there=False)
    await eventually(lambda: cloud.volumes(vm) is None)


async def test_a_thousand_vms_of_one_image_look_at_its_file_a_few_times(images: Images, cloud: Cloud) -> None:
    made = await images.upload("web", raw_disk())
    txns = [cloud.vm_txn(vm, [made.id]) for vm in range(1, 1001)]
    assert all(isinstance(each, int) for each in await cloud.store.commit_all(txns))
    await eventually(lambda: all(cloud.sources(vm) for vm in range(1, 1001)))


async def test_vms_that_were_there_before_get_theirs(cloud: Cloud, start: Start) -> None:
    vm = await cloud.vm(0, size_mib=1)
    async with start():
        await eventually(lambda: cloud.volumes(vm))
    await cloud.store.commit(Txn().delete(key("vm", vm, "volumes")))
    async with start():
        await eventually(lambda: cloud.volumes(vm))
