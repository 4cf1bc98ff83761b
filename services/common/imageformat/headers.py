"""What the first bytes of a file say. Pure: looked at before any other program opens a file that a user sent.

A qcow2 header can name other files; qemu-img would open them. So they are looked for here first.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

HEAD_BYTES = 128 * 1024
SECTOR = 512
_QCOW = b"QFI\xfb"
_DATA_FILE_BIT = 1 << 2
_CORRUPT_BIT = 1 << 1

_OTHER_FORMATS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"KDMV", "a VMDK image"), (0, b"COWD", "a VMDK image"), (0, b"# Disk DescriptorFile", "a VMDK descriptor"),
    (0x40, b"\x7f\x10\xda\xbe", "a VDI image"), (0, b"vhdxfile", "a VHDX image"), (0, b"conectix", "a VHD image"),
    (0, b"QED\0", "a QED image"), (0, b"LUKS\xba\xbe", "an encrypted LUKS volume"),
    (0, b"WithoutFreeSpace", "a Parallels image"), (0, b"WithouFreSpacExt", "a Parallels image"),
    (0, b"Bochs Virtual HD Image", "a Bochs image"), (257, b"ustar", "a tar archive"), (0, b"OOOM", "a cow image"),
)  # fmt: skip
_PACKED: tuple[tuple[bytes, str, str], ...] = (
    (b"\x1f\x8b", "gzip", "gunzip"), (b"\xfd7zXZ\0", "xz", "unxz"), (b"BZh", "bzip2", "bunzip2"),
    (b"\x28\xb5\x2f\xfd", "zstd", "unzstd"), (b"PK\x03\x04", "zip", "unzip"), (b"7z\xbc\xaf\x27\x1c", "7z", "7z x"),
)  # fmt: skip
_PAGES = (b"<!doctype", b"<html", b"<?xml", b"<head")
# What raw disks begin with: a boot sector, a file system, a CD-ROM.
_DISK_SIGNS: tuple[tuple[int, bytes], ...] = (
    (510, b"\x55\xaa"), (32769, b"CD001"), (1080, b"\x53\xef"), (0, b"XFSB"), (0x10040, b"_BHRfS_M"),
    (4086, b"SWAPSPACE2"), (0, b"hsqs"), (512, b"EFI PART"),
)  # fmt: skip


class Head(NamedTuple):
    """What a file looks like. `problem` says why it may not be used; empty where nothing speaks against it."""

    format: str
    """`qcow2`, `raw`, or empty where it is not recognised as either."""
    problem: str


def read_head(head: bytes, size: int) -> Head:
    """Judges a file of `size` bytes by its first `HEAD_BYTES`."""
    if not size:
        return Head("", "the file is empty")
    if head.startswith(_QCOW):
        return Head("qcow2", _qcow_problem(head))
    if problem := _foreign(head):
        return Head("", problem)
    return Head("raw" if _is_disk(head, size) else "", "")


def _qcow_problem(head: bytes) -> str:
    if len(head) < 104:
        return "it is a qcow2 image that was cut off"
    version, backing_offset = struct.unpack_from(">IQ", head, 4)
    if version not in (2, 3):
        return f"it is a qcow image of version {version}; convert it: qemu-img convert -O qcow2"
    if backing_offset:
        return "it refers to a backing file; make it one file: qemu-img convert -O qcow2"
    if struct.unpack_from(">I", head, 32)[0]:
        return "it is encrypted; images must be readable without a key"
    features = struct.unpack_from(">Q", head, 72)[0] if version == 3 else 0
    if features & _DATA_FILE_BIT:
        return "it keeps its data in another file; make it one file: qemu-img convert -O qcow2"
    return "it is marked corrupt; repair it: qemu-img check -r all" if features & _CORRUPT_BIT else ""


def _foreign(head: bytes) -> str:
    for at, sign, name in _OTHER_FORMATS:
        if head[at : at + len(sign)] == sign:
            return f"it is {name}; images are qcow2 or raw: qemu-img convert -O qcow2"
    for sign, name, program in _PACKED:
        if head.startswith(sign):
            return f"it is packed with {name}; unpack it first: {program}"
    if head[:512].lstrip().lower().startswith(_PAGES):
        return "it is a text page, not an image; is the address right?"
    return ""


def _is_disk(head: bytes, size: int) -> bool:
    """Whether a raw disk is recognised: whole sectors, and a sign of a disk or nothing at all in them."""
    if size % SECTOR:
        return False
    return any(head[at : at + len(sign)] == sign for at, sign in _DISK_SIGNS) or not head.strip(b"\0")
