"""Builder of the small demo guest: a bootable qcow2 from packages of the distribution, without root.

The kernel package is downloaded and unpacked, never installed. Must not start guests or talk to libvirt.
"""

from services.devstack.guestimage.build import boot_files, build_guest_image
from services.devstack.guestimage.errors import GuestImageError

__all__ = ["GuestImageError", "boot_files", "build_guest_image"]
