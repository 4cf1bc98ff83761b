"""Stacks shared by the tests that leave them as they found them: one with simulated hosts, one with real guests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.real import programs, real_part
from tests.support.stack import Stack, a_stack

BUILD_SECONDS = 300


@pytest.fixture(scope="session")
def sim_stack() -> Iterator[Stack]:
    """Four simulated hosts, no real one."""
    with a_stack("--sim-hosts", "4", "--no-real-host") as stack:
        yield stack


@pytest.fixture
def stack(sim_stack: Stack) -> Iterator[Stack]:
    """The shared stack; VMs that a test leaves are ended after it."""
    yield sim_stack
    if sim_stack.read("vm", "list"):
        sim_stack.moln("vm", "terminate", "--filter", "name=*", "--hard", "--yes", "--wait")


@pytest.fixture(scope="session")
def guest_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small guest, built once for the session."""
    real_part("small guest", programs("dpkg-deb", "cpio", "qemu-img"))
    file = tmp_path_factory.mktemp("guest") / "guest.qcow2"
    command = [sys.executable, "-m", "services.devstack.guestimage", "--output", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=BUILD_SECONDS)
    assert done.returncode == 0, done.stderr
    return file


@pytest.fixture(scope="module")
def real_stack(guest_image: Path) -> Iterator[Stack]:
    """A stack with a node that runs real guests by QEMU, and the image `guest`."""
    real_part("QEMU guests", programs("qemu-system-x86_64", "libvirtd"))
    with a_stack() as stack:
        host = stack.read("host", "show", "node-1")
        assert host["inventory"]["hypervisor"] in ("qemu", "kvm"), stack.log("stack")
        stack.moln("image", "create", "guest", "--path", guest_image)
        yield stack
