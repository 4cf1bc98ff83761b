"""Composes the demo guest's initramfs: BusyBox, the guest's own scripts, and the kernel modules it loads.

Pure apart from reading the scripts next to it. Must not know about disks or boot loaders.
"""

import gzip
from collections.abc import Iterable, Mapping
from importlib import resources

from services.devstack.guestimage import cpio, programs
from services.devstack.guestimage.modules import Module

_FOLDERS = ("bin", "sbin", "dev", "proc", "sys", "run", "tmp", "data", "mnt", "mnt/context", "root", "etc", "etc/moln")
_FOLDERS_FOR_MODULES = ("lib", "lib/modules", "etc/acpi", "etc/acpi/PWRF", "var", "var/run", "var/log")
_SCRIPTS = ("rc.boot", "rc.start", "rc.off", "lib.sh", "dhcp")
_PASSWD = b"root:x:0:0:root:/root:/bin/sh\n"
_SHADOW = b"root:*:19000:0:99999:7:::\n"


def build(busybox: bytes, applets: Iterable[str], groups: Mapping[str, list[Module]]) -> bytes:
    """The compressed archive. `groups` maps a word of the init script (base, ide, scsi) to modules in loading order."""
    entries = [*map(cpio.folder, (*_FOLDERS, *_FOLDERS_FOR_MODULES))]
    entries += [cpio.character_device("dev/console", 5, 1), cpio.character_device("dev/null", 1, 3, 0o666)]
    entries += [cpio.regular("bin/busybox", busybox, 0o755)]
    entries += [cpio.symlink(f"bin/{name}", "busybox") for name in sorted(set(applets) - {"busybox"})]
    entries += [cpio.symlink(name, programs.GUEST_FOLDER) for name in programs.LIBRARY_FOLDERS]
    entries += [*_configuration(), *_modules(groups)]
    return gzip.compress(cpio.archive(entries), compresslevel=9, mtime=0)


def _configuration() -> list[cpio.Entry]:
    scripts = [cpio.regular(f"etc/moln/{name}", script(name), 0o755) for name in _SCRIPTS]
    return [
        cpio.regular("init", script("init"), 0o755),
        cpio.regular("etc/inittab", script("inittab")),
        cpio.regular("etc/profile", script("profile")),
        cpio.symlink("etc/acpi/PWRF/00000080", "/etc/moln/rc.off"),
        cpio.regular("etc/passwd", _PASSWD),
        cpio.regular("etc/shadow", _SHADOW, 0o600),
        cpio.regular("etc/group", b"root:x:0:\n"),
        cpio.regular("etc/shells", b"/bin/sh\n"),
        *scripts,
    ]


def script(name: str) -> bytes:
    """The text of one of the guest's own scripts."""
    return resources.files(__package__).joinpath("guest", name).read_bytes()


def _modules(groups: Mapping[str, list[Module]]) -> list[cpio.Entry]:
    """Each module once; the list says to which groups it belongs."""
    lines = [f"{group} {module.name}.ko\n" for group, modules in groups.items() for module in modules]
    unique = {module.name: module.content for modules in groups.values() for module in modules}
    files = [cpio.regular(f"lib/modules/{name}.ko", content) for name, content in unique.items()]
    return [*files, cpio.regular("etc/moln/modules.list", "".join(lines).encode())]
