"""The distribution's packages that moln needs: which, which are missing, and their installation by apt.

Standard library only: runs before the virtual environment exists. It must start no daemon, install no kernel and leave
no trace of how it kept daemons from starting.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# Installed everywhere. A name that differs on a distribution is replaced by RENAMED.
PACKAGES = (
    # the store
    "etcd-server", "etcd-client",
    # the hypervisor and the way to it; gcc, pkg-config and libvirt-dev build libvirt-python
    "qemu-system-x86", "qemu-utils", "libvirt-daemon", "libvirt-daemon-driver-qemu", "libvirt-dev", "pkg-config", "gcc",
    # UEFI firmware with its signed variant, and TPMs for guests
    "ovmf", "swtpm", "swtpm-tools",
    # context images, and the small guest of the demo and the tests
    "xorriso", "busybox-static", "syslinux", "syslinux-common", "extlinux", "mtools", "dosfstools", "cpio",
    # networks
    "iproute2", "iptables", "nftables", "dnsmasq-base", "openssh-client",
    # monitoring: `moln dev up --monitoring`, and promtool for the checks
    "prometheus",
)  # fmt: skip
# Needed where the interpreter is the distribution's own.
PYTHON_PACKAGES = ("python3-venv", "python3-dev")
# (ID, VERSION_ID) of /etc/os-release -> package names that differ there.
RENAMED: dict[tuple[str, str], dict[str, str]] = {
    ("debian", "12"): {},
    ("debian", "13"): {},
    ("ubuntu", "24.04"): {},
}
SUPPORTED = "Debian 12, Debian 13 or Ubuntu 24.04"

POLICY = Path("/usr/sbin/policy-rc.d")
POLICY_TEXT = "#!/bin/sh\n# Written by moln's make setup while it installs packages: daemons stay stopped.\nexit 101\n"
UNIT_FOLDER = Path("/etc/systemd/system")
OUR_UNITS = ("etcd", "libvirt", "virt", "prometheus")


class SetupError(Exception):
    """What stops the set-up, in one line that names the remedy."""


@dataclass(frozen=True)
class Distribution:
    """What /etc/os-release says."""

    id: str
    version: str
    name: str

    @property
    def is_supported(self) -> bool:
        return (self.id, self.version) in RENAMED


def parse_os_release(text: str) -> Distribution:
    """Reads the lines of /etc/os-release; missing fields become empty."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    fields = {key.strip(): value.strip().strip("\"'") for key, value in pairs}
    name = fields.get("PRETTY_NAME") or fields.get("NAME") or "this system"
    return Distribution(fields.get("ID", ""), fields.get("VERSION_ID", ""), name)


def wanted(distribution: Distribution, *, system_python: bool) -> list[str]:
    """The packages to have on `distribution`; raises SetupError where moln is not known to run."""
    if not distribution.is_supported:
        raise SetupError(f"{distribution.name} is not supported: moln needs {SUPPORTED} with Python 3.11 or newer")
    renamed = RENAMED[distribution.id, distribution.version]
    names = PACKAGES + (PYTHON_PACKAGES if system_python else ())
    return [renamed.get(name, name) for name in names]


def missing(names: Sequence[str], dpkg_lines: Iterable[str]) -> list[str]:
    """Those of `names` that `dpkg-query` does not list as installed; each line is "status-abbreviation name"."""
    installed = {line.split()[1] for line in dpkg_lines if line.startswith("ii ")}
    return [name for name in names if name not in installed]


def installed_lines(names: Sequence[str]) -> list[str]:
    """What dpkg knows about `names`, one line each."""
    command = ["dpkg-query", "--show", "--showformat", "${db:Status-Abbrev} ${Package}\n", *names]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()


def root_prefix(*, is_root: bool, has_sudo: bool, may_ask: bool) -> list[str] | None:
    """The words before a command that needs root: none for root, sudo where it may work, None where nothing does."""
    if is_root:
        return []
    if not has_sudo:
        return None
    return ["sudo"] if may_ask else ["sudo", "-n"]


def install(names: Sequence[str], *, may_ask: bool) -> None:
    """Lists `names`, asks on a terminal, and installs them without starting what they bring."""
    print(f"moln needs these packages of the distribution ({len(names)}):\n  " + " ".join(names))
    by_hand = f"install them with: apt-get install --no-install-recommends {' '.join(names)}"
    prefix = root_prefix(is_root=os.geteuid() == 0, has_sudo=shutil.which("sudo") is not None, may_ask=may_ask)
    if prefix is None:
        raise SetupError(f"neither root nor sudo: as root, {by_hand}")
    if may_ask and not is_yes(input("Install them with apt-get? [Y/n] ")):
        raise SetupError(f"nothing was installed; {by_hand}")
    before = enabled_units(UNIT_FOLDER)
    with daemons_kept_stopped(prefix):
        try:
            _apt(prefix, "update")
            _apt(prefix, "install", "--yes", "--no-install-recommends", *names)
        except (OSError, subprocess.CalledProcessError) as err:
            raise SetupError(f"apt-get failed ({err}); as root, {by_hand}") from err
    disable_units(prefix, enabled_units(UNIT_FOLDER) - before)


def is_yes(answer: str) -> bool:
    """An empty answer takes the offered default."""
    return answer.strip().lower() in {"", "y", "yes"}


def enabled_units(folder: Path) -> frozenset[str]:
    """The systemd units that are enabled, by the links that say so (works without a running systemd)."""
    return frozenset(link.name for link in folder.glob("*.wants/*"))


def units_to_disable(new: Iterable[str]) -> list[str]:
    """Of the units that an installation enabled, those that moln runs by itself, in folders of its own."""
    return sorted(unit for unit in new if unit.startswith(OUR_UNITS))


def disable_units(prefix: Sequence[str], new: Iterable[str]) -> None:
    """Takes back that the installation enabled daemons: they would start at the next boot."""
    units = units_to_disable(new)
    if units and shutil.which("systemctl"):
        print("disabled again, moln starts its own: " + " ".join(units))
        subprocess.run([*prefix, "systemctl", "--quiet", "disable", *units], check=False)


@contextmanager
def daemons_kept_stopped(prefix: Sequence[str]) -> Iterator[None]:
    """Puts a policy-rc.d in place if and only if there is none, and removes it again."""
    if POLICY.exists() and POLICY.read_text(errors="replace") != POLICY_TEXT:
        yield
        return
    subprocess.run([*prefix, "tee", str(POLICY)], input=POLICY_TEXT, text=True, stdout=subprocess.DEVNULL, check=True)
    try:
        subprocess.run([*prefix, "chmod", "755", str(POLICY)], check=True)
        yield
    finally:
        subprocess.run([*prefix, "rm", "-f", str(POLICY)], check=True)


def _apt(prefix: Sequence[str], *arguments: str) -> None:
    command = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o=Dpkg::Use-Pty=0", *arguments]
    sys.stdout.flush()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
