"""Which nodes a stack has: simulated ones, and the best real one that this machine allows. Decides, and says why."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from services.devstack import libvirtd
from services.devstack.plans import Value, path_of

SIM = "sim"
REAL = "node"
REAL_HOST = "node-1"
TEST_URI = "test:///default"
_PROGRAMS = ("qemu-system-x86_64", "qemu-img")


@dataclass(frozen=True)
class NodePlan:
    """One agent: its name among the processes, its hosts, its settings."""

    name: str
    hosts: Sequence[str]
    settings: Mapping[str, Value] = field(default_factory=dict)
    has_own_libvirtd: bool = False
    """A libvirtd of the stack's own is started before it."""
    is_by_sudo: bool = False
    """It needs root, which this process has not."""
    words: str = ""
    """What it is, for people; with what is lost where it is less than it could be."""


@dataclass(frozen=True)
class Machine:
    """What this machine allows."""

    is_root: bool
    has_sudo: bool
    missing: Sequence[str]
    """Programs of QEMU that are not installed."""
    system_uri: str | None
    """libvirt of the machine, where it runs."""
    has_libvirtd: bool
    """libvirtd is installed."""


def sim_plan(count: int) -> NodePlan:
    """One agent that carries all simulated hosts."""
    names = [f"sim-{number}" for number in range(1, count + 1)]
    return NodePlan(SIM, names, {"driver": "sim"}, words=f"{count} simulated host{'s' if count != 1 else ''}")


def real_plan(machine: Machine, private_uri: str) -> NodePlan:
    """The best real node. `private_uri` is that of the stack's own libvirtd, should it be started."""
    lost = _why_not_real(machine)
    if lost:
        words = f"{REAL_HOST} runs no guests but pretends to (libvirt's test driver): {lost}"
        return NodePlan(REAL, [REAL_HOST], {"driver": "libvirt", "libvirt_uri": TEST_URI}, words=words)
    uri = machine.system_uri or private_uri
    where = "the machine's libvirt" if machine.system_uri else "a libvirt of its own"
    return NodePlan(
        REAL,
        [REAL_HOST],
        {"driver": "libvirt", "libvirt_uri": uri, "data_listen": "127.0.0.1:0"},
        has_own_libvirtd=machine.system_uri is None,
        is_by_sudo=not machine.is_root,
        words=f"{REAL_HOST} runs real guests by QEMU, on {where}",
    )


def look() -> Machine:
    """Finds out; asks for sudo's password where it is needed, would help, and there is a terminal."""
    is_root = os.geteuid() == 0
    missing = [name for name in _PROGRAMS if path_of(name) is None]
    system_uri, has_libvirtd = libvirtd.running_system_uri(), libvirtd.is_installed()
    needs_sudo = not is_root and not missing and bool(system_uri or has_libvirtd)
    has_sudo = needs_sudo and ask_for_root("the real node's agent makes bridges and talks to libvirt")
    return Machine(is_root, has_sudo, missing, system_uri, has_libvirtd)


def ask_for_root(why: str) -> bool:
    """Whether sudo works: asks for the password, after saying why, where there is a terminal."""
    if _is_sudo_silent():
        return True
    if path_of("sudo") is None or not sys.stdin.isatty():
        return False
    print(f"moln: {why}: that alone is done by sudo", flush=True)
    return subprocess.run(["sudo", "-v"], check=False).returncode == 0


def sudo_words() -> tuple[str, ...]:
    """What goes before the command of a process that needs root. sudo hands on no variables by itself."""
    path = os.environ.get("PYTHONPATH")
    return ("sudo", "-n", "--", *(("env", f"PYTHONPATH={path}") if path else ()), sys.executable)


def _why_not_real(machine: Machine) -> str:
    """What keeps this machine from running real guests, with the remedy; empty where nothing does."""
    if machine.missing:
        return f"not installed: {', '.join(machine.missing)} (apt-get install qemu-system-x86 qemu-utils)"
    if machine.system_uri is None and not machine.has_libvirtd:
        return "libvirt is not installed (apt-get install libvirt-daemon libvirt-daemon-driver-qemu)"
    if not machine.is_root and not machine.has_sudo:
        return "its agent needs root for bridges and libvirt, and sudo gives it only on a terminal (without --detach)"
    return ""


def _is_sudo_silent() -> bool:
    """Whether sudo needs no password now."""
    if path_of("sudo") is None:
        return False
    return subprocess.run(["sudo", "-n", "true"], check=False, capture_output=True).returncode == 0
