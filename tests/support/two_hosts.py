"""Two hosts on one machine: a network namespace and a libvirtd each, joined by a cable. They vanish in any case."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from services.common.runtime.process import READY_FILE, read_ready
from tests.support.eventually import eventually_sync
from tests.support.processes import Processes
from tests.support.real import needs_root, programs, real_part

ROOT = Path(__file__).parents[2]
_numbers = itertools.count(1)
_NAME = re.compile(r"moln-(\d+)-\d+[ab]")


@dataclass(frozen=True)
class Host:
    """One of them: where its libvirtd is reached, also by the other, and its address on the cable."""

    namespace: str
    uri: str
    address: str

    @property
    def migration_uri(self) -> str:
        """As an agent's setting has it."""
        return f"{self.uri}#tcp://{self.address}"


@contextmanager
def two_hosts(running: Processes, folder: Path) -> Iterator[tuple[Host, Host]]:
    """Both, with their libvirtds running."""
    real_part("libvirtd", programs("libvirtd", "qemu-system-x86_64", "qemu-img", "ip"))
    real_part("root", needs_root)
    _sweep()
    number = next(_numbers)
    names = [f"moln-{os.getpid()}-{number}{side}" for side in "ab"]
    try:
        _wire(names, f"mv{os.getpid() % 100_000}{number}")
        uris = [_libvirtd(running, folder, name) for name in names]
        yield Host(names[0], uris[0], "10.97.0.1"), Host(names[1], uris[1], "10.97.0.2")
    finally:
        for name in names:
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "delete", name)


def _sweep() -> None:
    """Removes what a test run left that was killed: its namespaces carry the number of its process."""
    for line in subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True).stdout.splitlines():
        found = _NAME.match(line)
        if found is not None and not Path(f"/proc/{found[1]}").exists():
            _ip("netns", "delete", found[0])


def _wire(names: list[str], cable: str) -> None:
    for name in names:
        _ip("netns", "add", name)
        _ip("-n", name, "link", "set", "lo", "up")
    ends = [f"{cable}a", f"{cable}b"]
    _ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
    for index, (name, end) in enumerate(zip(names, ends, strict=True)):
        _ip("link", "set", end, "netns", name)
        _ip("-n", name, "address", "add", f"10.97.0.{index + 1}/24", "dev", end)
        _ip("-n", name, "link", "set", end, "up")


def _libvirtd(running: Processes, folder: Path, namespace: str) -> str:
    ready = folder / f"{namespace}.ready"
    state = folder / namespace
    running.start(
        ["ip", "netns", "exec", namespace, sys.executable, "-m", "services.devstack.libvirtd", "--state", state],
        env={READY_FILE: str(ready)}, cwd=ROOT, name=namespace,
    )  # fmt: skip
    return eventually_sync(lambda: (read_ready(ready) or {}).get("libvirt", ""), what="libvirtd is ready", within=90)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
