"""Where the disks of a VM come from: all of them or none. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from moln.compute.v1.template_pb2 import DiskDevice, DiskTemplate, VmTemplate
from moln.compute.v1.vm_pb2 import VmVolumes, Volume
from moln.image.v1.image_pb2 import ImageSpec, ImageState, ImageStatus
from services.common.domain.reasons import Reason

MIB = 1 << 20


class Known(NamedTuple):
    """An image as it stands, and where its datastore is."""

    spec: ImageSpec
    status: ImageStatus
    state: ImageState
    folder: str


class Refused(NamedTuple):
    """Why there is no volume."""

    reason: Reason
    message: str
    image_id: int


_STATES = {
    ImageState.IMAGE_STATE_IMPORTING: "is still being fetched",
    ImageState.IMAGE_STATE_DELETING: "is being deleted",
}


def volumes(template: VmTemplate, find: Callable[[int], Known | None]) -> VmVolumes | Refused:
    """A volume for every disk, and for a kernel and its RAM disk where they are asked for; or why one lacks."""
    found = VmVolumes()
    for disk in template.disks:
        volume = _volume(disk, find)
        if isinstance(volume, Refused):
            return volume
        found.disks.append(volume)
    for image_id, target in ((template.boot.kernel_image_id, "kernel"), (template.boot.initrd_image_id, "initrd")):
        if image_id:
            file = _file(image_id, target, find)
            if isinstance(file, Refused):
                return file
            getattr(found, target).CopyFrom(file)
    return found


def _file(image_id: int, what: str, find: Callable[[int], Known | None]) -> Volume | Refused:
    """An image that is handed on as it is. Its format may not have been known when it was asked for."""
    volume = _volume(DiskTemplate(image_id=image_id, format="raw"), find)
    if isinstance(volume, Volume) and volume.source_format != "raw":
        message = f"image {image_id} for the {what} has the format {volume.source_format}, and must be raw"
        return Refused(Reason.IMAGE_INVALID, message, image_id)
    return volume


def _volume(disk: DiskTemplate, find: Callable[[int], Known | None]) -> Volume | Refused:
    if not disk.image_id:
        return Volume(disk_id=disk.disk_id, virtual_size_bytes=disk.size_mib * MIB, format=disk.format or "qcow2")
    known = find(disk.image_id)
    if known is None:
        message = f"image {disk.image or disk.image_id} of disk {disk.disk_id} does not exist any more"
        return Refused(Reason.IMAGE_NOT_FOUND, message, disk.image_id)
    if known.state != ImageState.IMAGE_STATE_READY:
        return _not_ready(disk.image_id, known)
    status = known.status
    return Volume(
        disk_id=disk.disk_id,
        image_id=disk.image_id,
        image_uid=known.spec.uid,
        source=f"{known.folder}/{status.path}",
        source_format=status.format,
        sha256=status.sha256,
        file_size_bytes=status.file_size_bytes,
        virtual_size_bytes=max(status.virtual_size_bytes, disk.size_mib * MIB),
        datastore_id=known.spec.datastore_id,
        format=disk.format or ("raw" if disk.device == DiskDevice.DISK_DEVICE_CDROM else "qcow2"),
    )


def _not_ready(image_id: int, known: Known) -> Refused:
    words = _STATES.get(known.state) or f"cannot be used: {known.status.message or known.status.reason}"
    return Refused(Reason.IMAGE_NOT_READY, f"image {known.spec.name} {words}", image_id)
