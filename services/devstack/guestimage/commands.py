"""Runs the programs of the image builder by argument vector. Must not use a shell."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from services.devstack.guestimage.errors import GuestImageError

TIMEOUT_SECONDS = 300.0

_PACKAGE_OF = {
    "apt-get": "apt",
    "apt-cache": "apt",
    "dpkg-deb": "dpkg",
    "mkfs.vfat": "dosfstools",
    "mcopy": "mtools",
    "syslinux": "syslinux",
    "mke2fs": "e2fsprogs",
    "qemu-img": "qemu-utils",
    "busybox": "busybox-static",
    "zstd": "zstd",
}


def find_program(name: str) -> str:
    """The path of a program, also where an ordinary user's PATH lacks the sbin folders."""
    path = shutil.which(name) or shutil.which(name, path="/usr/local/sbin:/usr/sbin:/sbin")
    if path is None:
        raise GuestImageError(f"{name} is not installed: install the package {_PACKAGE_OF.get(name, name)}")
    return path


def run(program: str, *arguments: str | Path, cwd: Path | None = None, stdin: bytes = b"") -> bytes:
    """The program's standard output; a GuestImageError with its last words when it fails."""
    command: Sequence[str] = [find_program(program), *map(str, arguments)]
    try:
        done = subprocess.run(command, cwd=cwd, input=stdin, capture_output=True, timeout=TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired as err:
        raise GuestImageError(f"{program} did not end within {TIMEOUT_SECONDS:.0f} s") from err
    if done.returncode != 0:
        last_words = done.stderr.decode(errors="replace").strip().splitlines()[-3:]
        raise GuestImageError(f"{program} failed ({done.returncode}): {' / '.join(last_words) or 'it said nothing'}")
    return done.stdout
