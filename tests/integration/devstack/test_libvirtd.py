"""A stack's own libvirtd: its guests survive it, the next one adopts them, and nothing of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from services.common.domain.reasons import Reason
from services.devstack.libvirtd import LibvirtdFolder, accepts
from services.hostagent.drivers.libvirt.connection import HypervisorError, LibvirtConnection
from services.hostagent.drivers.libvirt.guests import Guests
from services.hostagent.drivers.libvirt.spec import DomainSpec, Mark, MemorySpec
from services.hostagent.drivers.ports import Power
from tests.support import hypervisor
from tests.support.eventually import eventually
from tests.support.processes import Processes

pytestmark = pytest.mark.timeout(180)
SPEC = DomainSpec(
    Mark(1, "6f3ea5ee-6f3f-4b71-8b5c-0d4ee61b6d51", 1, "cloud"), "moln-1", "qemu", MemorySpec(32), 1, machine="pc"
)


async def test_guests_survive_the_death_of_libvirtd_and_the_next_one_adopts_them(
    running: Processes, folder: Path
) -> None:
    connection = LibvirtConnection(hypervisor.private_libvirtd(running, folder))
    own, guests = LibvirtdFolder(folder / "libvirtd"), Guests(connection)
    await guests.start(SPEC)
    (guest_pid,) = own.guest_pids()
    try:
        os.kill(int(own.pid_file.read_text()), signal.SIGKILL)
        await eventually(lambda: not accepts(own.socket), what="libvirtd has ended")
        (folder / "libvirtd.ready").unlink(missing_ok=True)
        assert not own.erase_run(), "the next one needs to know of the guest"
        hypervisor.private_libvirtd(running, folder)
        assert await guests.power(SPEC.uid) is Power.RUNNING, "the connection is opened anew by itself"
        assert own.guest_pids() == [guest_pid]
    finally:
        await guests.destroy(SPEC.uid)
        await guests.undefine(SPEC.uid)
        await connection.close()


async def test_a_libvirtd_that_hangs_holds_nobody_up_and_is_found_again(running: Processes, folder: Path) -> None:
    connection = LibvirtConnection(hypervisor.private_libvirtd(running, folder), call_seconds=1.0)
    guests, pid = Guests(connection), int(LibvirtdFolder(folder / "libvirtd").pid_file.read_text())
    assert await guests.all() == []
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(HypervisorError, match="did not answer within 1 s") as failed:
            await guests.power(SPEC.uid)
        assert failed.value.reason is Reason.HYPERVISOR_FAILED
    finally:
        os.kill(pid, signal.SIGCONT)
    assert await guests.all() == []
    await connection.close()


async def test_stopping_it_leaves_nothing_of_this_run(running: Processes, folder: Path) -> None:
    hypervisor.private_libvirtd(running, folder)
    own = LibvirtdFolder(folder / "libvirtd")
    assert own.run.is_dir()
    mounts = Path("/proc/self/mounts").read_text()
    assert str(folder) not in mounts, "its mounts are its own"
    running.close()
    assert not own.run.exists()


async def test_a_second_one_in_the_same_folder_says_so_in_one_line(running: Processes, folder: Path) -> None:
    hypervisor.private_libvirtd(running, folder)
    done = run_module(folder / "libvirtd")
    assert done.returncode == 1
    assert done.stderr == f"libvirtd: a libvirtd for {folder / 'libvirtd'} runs already\n"


def test_without_root_it_says_so_in_one_line(folder: Path) -> None:
    words = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"] if os.geteuid() == 0 else []
    done = run_module(folder / "libvirtd", *words)
    assert (done.returncode, done.stderr) == (1, "libvirtd: a private libvirtd needs root\n")


def run_module(state: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [*words, sys.executable, "-m", "services.devstack.libvirtd", "--state", str(state)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=hypervisor.ROOT)
