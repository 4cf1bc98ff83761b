"""Which images a template is made from. Pure."""

from __future__ import annotations

from moln.compute.v1.template_pb2 import VmTemplate


def image_ids(template: VmTemplate) -> set[int]:
    """Ids of the images of disks, and of a kernel that is booted directly with its initial RAM disk."""
    found = {disk.image_id for disk in template.disks}
    if template.HasField("boot"):
        found.update((template.boot.kernel_image_id, template.boot.initrd_image_id))
    found.discard(0)
    return found
