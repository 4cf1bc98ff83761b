"""Fetches packages of the distribution and unpacks them, kept by version in a cache.

A version that is in the cache is never downloaded again, so a second build works without a network. Must not install.
"""

import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from services.devstack.guestimage.commands import run
from services.devstack.guestimage.errors import GuestImageError

KERNEL_METAPACKAGES = ("linux-image-cloud-amd64", "linux-image-virtual")


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/moln`, usually ~/.cache/moln."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "moln"


@dataclass(frozen=True)
class Package:
    """One package of the distribution in the version that apt would install."""

    name: str
    version: str

    @property
    def folder_name(self) -> str:
        return f"{self.name}_{self.version.replace(':', '%3a').replace('/', '_')}"


def candidates(names: Iterable[str]) -> list[Package]:
    """The versions that apt would install, in one query; names that apt does not know are left out."""
    found: list[Package] = []
    name = ""
    for line in run("apt-cache", "policy", *names).decode().splitlines():
        key, _, value = line.strip().partition(":")
        if not line.startswith(" "):
            name = key
        elif key == "Candidate" and value.strip() != "(none)":
            found.append(Package(name, value.strip()))
    return found


def with_dependencies(name: str) -> list[str]:
    """The name of a package and of all that it needs, directly or not; empty when apt does not know it."""
    return list(_dependencies(name, "--recurse"))


def kernel_packages() -> list[Package]:
    """The packages with the newest kernel for virtual machines: the image, and its modules where they are apart."""
    for metapackage in KERNEL_METAPACKAGES:
        known = _dependencies(metapackage, "--recurse")
        for image in known.get(metapackage, []):
            modules = [name for name in known.get(image, []) if name.startswith("linux-modules-")]
            return candidates([image, *modules])
    raise GuestImageError(f"apt knows none of {', '.join(KERNEL_METAPACKAGES)}: run `apt-get update`")


def _dependencies(name: str, *options: str) -> dict[str, list[str]]:
    """What each package needs; virtual packages and alternatives are left out."""
    try:
        lines = run("apt-cache", "depends", "--important", *options, name).decode().splitlines()
    except GuestImageError:
        return {}
    needs: dict[str, list[str]] = {}
    for line in lines:
        key, _, value = line.strip().partition(": ")
        if not line.startswith(" ") and not line.startswith("<"):
            needs[line] = current = []
        elif key == "Depends" and not value.startswith("<"):
            current.append(value)
    return needs


def unpacked(package: Package, cache: Path) -> Path:
    """The folder with the package's files; downloads and unpacks it when the cache has not this version."""
    target = cache / "packages" / package.folder_name
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".unpack-", dir=target.parent))
    try:
        run("apt-get", "download", f"{package.name}={package.version}", cwd=work)
        deb = next(work.glob("*.deb"))
        run("dpkg-deb", "-x", deb, work / "files")
        _move_in_place(work / "files", target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _move_in_place(source: Path, target: Path) -> None:
    """Another builder may have been faster; its copy is as good."""
    try:
        source.rename(target)
    except OSError:
        if not target.is_dir():
            raise
