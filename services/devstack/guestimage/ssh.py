"""Gathers the small SSH server for the guest's own disk: dropbear, its key maker, and the libraries they load.

The files come from packages of the distribution. A guest without SSH is still a guest: a missing package leaves it out.
"""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from services.devstack.guestimage.packages import Package, candidates, with_dependencies

PACKAGE = "dropbear-bin"
# Where the guest mounts its state partition, and so where the programs find their loader and libraries.
GUEST_FOLDER = "/data/ssh"
LIBRARY_FOLDERS = ("lib64", "lib/x86_64-linux-gnu")

_PROGRAMS = ("dropbear", "dropbearkey")
_LIBRARY_NAME = re.compile(rb"[A-Za-z][\w.+-]*\.so\.[\w.]+")


def packages() -> list[Package]:
    """The SSH server's package and all it depends on; empty where the distribution has none."""
    names = with_dependencies(PACKAGE)
    return candidates(names) if names else []


def install(target: Path, roots: list[Path]) -> None:
    """Copies the programs, and the libraries that they name, out of unpacked packages into `target`."""
    files = {file.name: file for root in roots for file in root.rglob("*") if file.is_file()}
    target.mkdir(parents=True)
    for name in _with_libraries(_PROGRAMS, files):
        shutil.copyfile(files[name].resolve(), target / name)
        (target / name).chmod(0o755)


def _with_libraries(names: tuple[str, ...], files: Mapping[str, Path]) -> set[str]:
    """Follows the names of shared libraries that stand in each file, as far as the packages have them."""
    found: set[str] = set()
    waiting = set(names)
    while waiting:
        name = waiting.pop()
        found.add(name)
        mentioned = {match.decode() for match in _LIBRARY_NAME.findall(files[name].read_bytes())}
        waiting |= (mentioned & files.keys()) - found
    return found
