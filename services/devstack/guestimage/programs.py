"""Gathers programs that BusyBox lacks for the guest's own disk, with the libraries they load: SSH and the guest agent.

The files come from packages of the distribution. Without them a guest is still a guest: what is missing is left out.
"""

import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from services.devstack.guestimage.packages import Package, candidates, with_dependencies

PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "dropbear-bin": ("dropbear", "dropbearkey"),
    "qemu-guest-agent": ("qemu-ga",),
}
"""By package."""
# Where the guest mounts its state partition, and so where the programs find their loader and libraries.
GUEST_FOLDER = "/data/programs"
LIBRARY_FOLDERS = ("lib64", "lib/x86_64-linux-gnu")

_LIBRARY_NAME = re.compile(rb"[A-Za-z][\w.+-]*\.so\.[\w.]+")


def packages() -> list[Package]:
    """The programs' packages and all they depend on; without those that the distribution has not."""
    names = {name for package in PROGRAMS for name in with_dependencies(package)}
    return candidates(sorted(names)) if names else []


def install(target: Path, roots: list[Path]) -> None:
    """Copies the programs, and the libraries that they name, out of unpacked packages into `target`."""
    files = {file.name: file for root in roots for file in root.rglob("*") if file.is_file()}
    wanted = [name for names in PROGRAMS.values() for name in names if name in files]
    target.mkdir(parents=True)
    for name in _with_libraries(wanted, files):
        shutil.copyfile(files[name].resolve(), target / name)
        (target / name).chmod(0o755)


def _with_libraries(names: Iterable[str], files: Mapping[str, Path]) -> set[str]:
    """Follows the names of shared libraries that stand in each file, as far as the packages have them."""
    found: set[str] = set()
    waiting = set(names)
    while waiting:
        name = waiting.pop()
        found.add(name)
        mentioned = {match.decode() for match in _LIBRARY_NAME.findall(files[name].read_bytes())}
        waiting |= (mentioned & files.keys()) - found
    return found
