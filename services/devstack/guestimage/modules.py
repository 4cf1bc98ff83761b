"""Finds kernel modules with everything they depend on, in the order in which they must be loaded.

Reads the `depends=` of each module, because modules.dep exists only where a kernel is installed. Must not run a program
of the kernel's.
"""

import lzma
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from services.devstack.guestimage.commands import run
from services.devstack.guestimage.errors import GuestImageError

_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")


@dataclass(frozen=True)
class Module:
    """A kernel module: its name (with underscores) and its uncompressed bytes."""

    name: str
    content: bytes

    @property
    def depends(self) -> list[str]:
        found = _DEPENDS.search(self.content)
        return [_canonical(name) for name in found[1].decode().split(",") if name] if found else []


class ModuleTree:
    """The modules of one unpacked kernel package."""

    def __init__(self, roots: Iterable[Path]) -> None:
        files = [file for root in roots for file in root.rglob("*.ko*") if file.is_file()]
        self._files = {_canonical(file.name.split(".ko")[0]): file for file in files}
        lists = [found for root in roots for found in root.rglob("modules.builtin")]
        self._builtin = {_canonical(Path(line).stem) for found in lists for line in found.read_text().split()}

    def closure(self, names: Iterable[str]) -> list[Module]:
        """The modules and what they depend on, dependencies first; what is built into the kernel is left out."""
        ordered: dict[str, Module] = {}
        for name in names:
            self._add(_canonical(name), ordered)
        return list(ordered.values())

    def _add(self, name: str, ordered: dict[str, Module]) -> None:
        if name in ordered or name in self._builtin:
            return
        module = self._read(name)
        for dependency in module.depends:
            self._add(dependency, ordered)
        ordered[name] = module

    def _read(self, name: str) -> Module:
        file = self._files.get(name)
        if file is None:
            raise GuestImageError(f"the kernel package has no module {name}")
        return Module(name, _uncompressed(file))


def _canonical(name: str) -> str:
    return name.replace("-", "_")


def _uncompressed(file: Path) -> bytes:
    if file.suffix == ".xz":
        return lzma.decompress(file.read_bytes())
    if file.suffix == ".zst":
        return run("zstd", "-dcq", file)
    return file.read_bytes()
