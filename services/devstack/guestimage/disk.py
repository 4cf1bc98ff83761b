"""Lays the guest's disk out: boot record, a FAT partition with kernel and boot loader, an ext4 partition for state.

All by tools that write to plain files, so no root, mount or loop device is needed. Must not know what the kernel boots.
"""

import shutil
import struct
from collections.abc import Mapping
from pathlib import Path

from services.devstack.guestimage.commands import run
from services.devstack.guestimage.errors import GuestImageError

SECTOR_BYTES = 512
MIB = 1024 * 1024
BOOT_START_MIB = 1
BOOT_SLACK_MIB = 2
STATE_MIB = 40

_MBR_PLACES = (
    "/usr/lib/SYSLINUX/mbr.bin",
    "/usr/lib/syslinux/mbr/mbr.bin",
    "/usr/lib/syslinux/bios/mbr.bin",
    "/usr/share/syslinux/mbr.bin",
)
_MBR_CODE_BYTES = 440
_FAT16_LBA, _LINUX = 0x0E, 0x83
_BOOTABLE = 0x80
_DISK_ID = 0x4D4F4C4E
_CHS_BEYOND = b"\xfe\xff\xff"


def write_disk(work: Path, boot_files: Mapping[str, bytes], state_root: Path) -> Path:
    """The raw disk, as a file in `work`. `state_root` is copied into the state partition."""
    boot_mib = sum(map(len, boot_files.values())) // MIB + BOOT_SLACK_MIB
    state_start_mib = BOOT_START_MIB + boot_mib
    parts = {
        BOOT_START_MIB: _boot_partition(work, boot_files, boot_mib),
        state_start_mib: _state_partition(work, state_root),
    }
    disk = work / "disk.raw"
    with disk.open("wb") as out:
        out.write(_boot_record(boot_mib, state_start_mib))
        for start_mib, part in parts.items():
            out.seek(start_mib * MIB)
            with part.open("rb") as source:
                shutil.copyfileobj(source, out, MIB)
        out.truncate((state_start_mib + STATE_MIB) * MIB)
    return disk


def _boot_partition(work: Path, files: Mapping[str, bytes], size_mib: int) -> Path:
    part, folder = work / "boot.part", work / "boot"
    folder.mkdir()
    part.touch()
    with part.open("r+b") as out:
        out.truncate(size_mib * MIB)
    hidden_sectors = BOOT_START_MIB * MIB // SECTOR_BYTES
    run("mkfs.vfat", "-F", "16", "-n", "MOLN-BOOT", "-h", str(hidden_sectors), part)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    run("mcopy", "-i", part, *(folder / name for name in files), "::/")
    run("syslinux", "--install", part)
    return part


def _state_partition(work: Path, root: Path) -> Path:
    part = work / "state.part"
    # No journal: a small disk that boots fast matters more than what a power cut leaves of a demo.
    run("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-L", "moln-data", "-E", "root_owner=0:0",
        "-d", root, part, f"{STATE_MIB}M")  # fmt: skip
    return part


def _boot_record(boot_mib: int, state_start_mib: int) -> bytes:
    """The first sector: syslinux's loader of the active partition, then the table of the two partitions."""
    loader = _mbr_loader().ljust(_MBR_CODE_BYTES, b"\0")[:_MBR_CODE_BYTES]
    table = _partition(_BOOTABLE, _FAT16_LBA, BOOT_START_MIB, boot_mib)
    table += _partition(0, _LINUX, state_start_mib, STATE_MIB)
    return loader + struct.pack("<IH", _DISK_ID, 0) + table.ljust(64, b"\0") + b"\x55\xaa"


def _partition(flags: int, kind: int, start_mib: int, size_mib: int) -> bytes:
    sectors = MIB // SECTOR_BYTES
    return struct.pack("<B3sB3sII", flags, _CHS_BEYOND, kind, _CHS_BEYOND, start_mib * sectors, size_mib * sectors)


def _mbr_loader() -> bytes:
    for place in _MBR_PLACES:
        if Path(place).is_file():
            return Path(place).read_bytes()
    raise GuestImageError("the boot loader mbr.bin of syslinux is missing: install the package syslinux-common")
