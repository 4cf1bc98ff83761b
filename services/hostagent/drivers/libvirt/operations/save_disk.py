"""A disk as a new image: a copy of one moment, whole in itself, which the image service takes over."""

from __future__ import annotations

import shutil
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from moln.image.v1.image_data_service_pb2 import UploadDiskRequest
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.hostagent.drivers.libvirt import shape
from services.hostagent.drivers.libvirt.operations.base import Op, failed
from services.hostagent.drivers.libvirt.steps import as_reason
from services.hostagent.drivers.ports import Outcome
from services.hostagent.storage import qemu_img
from services.hostagent.storage.copies import percents

COPY, UPLOAD = "copy_disk", "upload"
FORMAT = "qcow2"
SPARE_BYTES = 64 << 20


async def save(op: Op) -> Outcome:
    """Repeated after a crash of the agent it is copied anew; the image service makes one image of one operation."""
    if not op.order.datastore.address:
        raise failed("the order holds no leave to bring a disk to a datastore")
    paths = op.folder.disk_files(op.parameters.disk_id)
    if not paths:
        raise MolnError(Reason.DISK_NOT_FOUND, f"the VM has no disk {op.parameters.disk_id} on this node")
    copy = op.folder.path / f"export-{op.parameters.disk_id}.{FORMAT}"
    try:
        await _copy(op, paths[0], copy)
        image_id = await _upload(op, copy)
    finally:
        copy.unlink(missing_ok=True)
    return Outcome(True, results={"image_id": str(image_id)})


async def _copy(op: Op, path: Path, copy: Path) -> None:
    op.work.progress(op.work, COPY, 0)
    is_running = await op.live.runs(op.uid)
    if is_running:
        await op.live.abort_backup(op.uid, copy)  # what a former agent has begun
    copy.unlink(missing_ok=True)
    facts = await qemu_img.inspect(path, path.suffix.lstrip("."))
    free = shutil.disk_usage(copy.parent).free
    if facts.virtual_size_bytes + SPARE_BYTES > free:
        needed = f"{facts.virtual_size_bytes >> 20} MiB may be needed for the copy"
        raise failed(f"{needed}, and {free >> 20} MiB are free on the node's disk")
    if not is_running:
        await qemu_img.convert(path, path.suffix.lstrip("."), copy, FORMAT)
        return
    disk = shape.find_disk(await op.live.describe(op.uid), op.parameters.disk_id)
    if disk is None:
        raise MolnError(Reason.DISK_NOT_FOUND, f"the guest has no disk {op.parameters.disk_id}")
    try:
        await op.live.backup(op.uid, _request(shape.target_of(disk), copy), op.percent(COPY))
    except MolnError as err:
        raise failed(err.message) from err


def _request(target: str, copy: Path) -> str:
    root = Element("domainbackup", {"mode": "push"})
    disk = SubElement(SubElement(root, "disks"), "disk", {"name": target, "backup": "yes", "type": "file"})
    SubElement(disk, "target", {"file": str(copy)})
    SubElement(disk, "driver", {"type": FORMAT})
    return ElementTree.tostring(root, encoding="unicode")


async def _upload(op: Op, copy: Path) -> int:
    op.work.progress(op.work, UPLOAD, 0)
    first = UploadDiskRequest(
        vm_id=op.work.vm_id, uid=op.uid, operation_id=op.operation.id, name=op.parameters.image_name, format=FORMAT
    )
    heard = percents(copy.stat().st_size, op.percent(UPLOAD))
    with as_reason(Reason.UPLOAD_FAILED):
        return await op.tools.volumes.upload_disk(op.order.datastore, first, copy, heard)
