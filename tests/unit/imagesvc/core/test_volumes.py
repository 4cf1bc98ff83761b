"""Where the disks of a VM come from."""

from __future__ import annotations

import pytest

from moln.compute.v1.template_pb2 import BootShape, DiskDevice, DiskTemplate, VmTemplate
from moln.compute.v1.vm_pb2 import Volume
from moln.image.v1.image_pb2 import ImageSpec, ImageState, ImageStatus
from services.common.domain.reasons import Reason
from services.imagesvc.core.volumes import MIB, Known, Refused, volumes


def known(state: ImageState = ImageState.IMAGE_STATE_READY, message: str = "") -> Known:
    spec = ImageSpec(uid="u1", name="web", datastore_id=3)
    status = ImageStatus(
        state=state, format="qcow2", path="u1.qcow2", sha256="ab", virtual_size_bytes=8 * MIB, file_size_bytes=9,
        message=message,
    )  # fmt: skip
    return Known(spec, status, state, "/srv/ds")


def only(disk: DiskTemplate, image: Known | None = None) -> Volume | Refused:
    found = volumes(VmTemplate(disks=[disk]), lambda _: image)
    return found if isinstance(found, Refused) else found.disks[0]


def test_a_disk_says_where_its_image_is() -> None:
    found = only(DiskTemplate(disk_id=2, image_id=1), known())
    assert isinstance(found, Volume)
    assert (found.disk_id, found.source, found.source_format, found.datastore_id) == (2, "/srv/ds/u1.qcow2", "qcow2", 3)
    assert (found.virtual_size_bytes, found.format) == (8 * MIB, "qcow2")


@pytest.mark.parametrize(("size_mib", "expected"), [(0, 8), (4, 8), (8, 8), (20, 20)])
def test_a_disk_is_never_smaller_than_its_image(size_mib: int, expected: int) -> None:
    found = only(DiskTemplate(image_id=1, size_mib=size_mib), known())
    assert isinstance(found, Volume)
    assert found.virtual_size_bytes == expected * MIB


def test_the_format_on_the_host_is_as_asked_for() -> None:
    formats = [
        only(DiskTemplate(image_id=1, format="raw"), known()),
        only(DiskTemplate(image_id=1, device=DiskDevice.DISK_DEVICE_CDROM), known()),
        only(DiskTemplate(size_mib=1)),
    ]
    assert [each.format for each in formats if isinstance(each, Volume)] == ["raw", "raw", "qcow2"]


@pytest.mark.parametrize(
    ("image", "reason", "words"),
    [
        (None, Reason.IMAGE_NOT_FOUND, "does not exist"),
        (known(ImageState.IMAGE_STATE_IMPORTING), Reason.IMAGE_NOT_READY, "still being fetched"),
        (known(ImageState.IMAGE_STATE_DELETING), Reason.IMAGE_NOT_READY, "being deleted"),
        (known(ImageState.IMAGE_STATE_ERROR, "it burnt"), Reason.IMAGE_NOT_READY, "it burnt"),
    ],
)
def test_an_image_that_cannot_be_used_is_named(image: Known | None, reason: Reason, words: str) -> None:
    found = only(DiskTemplate(image_id=1, image="web"), image)
    assert isinstance(found, Refused)
    assert (found.reason, words in found.message, "web" in found.message) == (reason, True, True)


def test_all_disks_or_none() -> None:
    template = VmTemplate(disks=[DiskTemplate(size_mib=1), DiskTemplate(disk_id=1, image_id=1)])
    assert isinstance(volumes(template, lambda _: None), Refused)
    found = volumes(template, lambda _: known())
    assert not isinstance(found, Refused)
    assert [each.disk_id for each in found.disks] == [0, 1]


def test_a_kernel_is_handed_on_as_it_is_and_must_be_raw() -> None:
    template = VmTemplate(boot=BootShape(kernel_image_id=1, initrd_image_id=2))
    found = volumes(template, lambda _: known()._replace(status=ImageStatus(format="raw", path="u1.raw")))
    assert not isinstance(found, Refused)
    assert (found.kernel.image_id, found.initrd.image_id, found.kernel.format) == (1, 2, "raw")
    refused = volumes(template, lambda _: known())
    assert isinstance(refused, Refused)
    assert (refused.reason, refused.image_id) == (Reason.IMAGE_INVALID, 1)
