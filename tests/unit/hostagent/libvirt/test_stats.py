"""libvirt's flat records of domains as values."""

from __future__ import annotations

import subprocess
import sys

import pytest

from services.hostagent.drivers.libvirt.connection import is_local
from services.hostagent.drivers.libvirt.onebyone import OneByOne
from services.hostagent.drivers.libvirt.stats import guest_stats

RECORD = {
    "state.state": 1, "cpu.time": 1234, "vcpu.current": 2, "balloon.current": 1024, "balloon.maximum": 2048,
    "balloon.rss": 512, "block.count": 2, "block.0.name": "vda", "block.0.rd.bytes": 10, "block.0.rd.reqs": 1,
    "block.0.wr.bytes": 20, "block.0.wr.reqs": 2, "block.0.capacity": 1000, "block.1.name": "sda", "net.count": 1,
    "net.0.name": "vnet0", "net.0.rx.bytes": 5, "net.0.tx.drop": 6,
}  # fmt: skip


def test_a_running_guest_is_read_in_bytes() -> None:
    stats = guest_stats(7, "uid", "moln-7", RECORD)
    assert (stats.cpu_ns, stats.vcpus, stats.is_active) == (1234, 2, True)
    assert (stats.memory_current, stats.memory_max, stats.memory_rss) == (1 << 20, 2 << 20, 512 << 10)
    assert (stats.nics[0].receive_bytes, stats.nics[0].transmit_drops, stats.nics[0].transmit_bytes) == (5, 6, 0)


def test_a_disk_that_is_not_counted_is_left_out() -> None:
    (disk,) = guest_stats(7, "uid", "moln-7", RECORD).disks
    assert (disk.device, disk.read_bytes, disk.write_requests, disk.capacity_bytes) == ("vda", 10, 2, 1000)
    assert disk.allocation_bytes is None


def test_of_a_guest_whose_monitor_hangs_the_rest_is_told() -> None:
    stats = guest_stats(7, "uid", "moln-7", {"state.state": 1, "cpu.time": 9})
    assert (stats.cpu_ns, stats.memory_current, stats.disks, stats.nics) == (9, None, (), ())


@pytest.mark.parametrize(
    ("uri", "here"),
    [
        ("qemu:///system", True),
        ("test:///default", True),
        ("qemu+unix:///system?socket=/x", True),
        ("qemu+ssh://root@node/system", False),
    ],
)
def test_the_machine_of_a_uri(uri: str, here: bool) -> None:
    assert is_local(uri) is here


HANGS = """
import threading
from services.hostagent.drivers.libvirt.onebyone import OneByOne
calls, began = OneByOne(), threading.Event()
def hang():
    began.set()
    threading.Event().wait()
calls.submit(hang)
calls.submit(print, "never")
assert began.wait(10)
print("ends")
"""


def test_a_call_that_never_returns_keeps_no_process_from_its_end() -> None:
    """A guest that hangs holds a call for ever; the agent must still end when it is told to."""
    done = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "ends\n"), done.stderr


def test_calls_go_one_after_the_other_and_their_errors_reach_who_waits() -> None:
    calls = OneByOne()
    assert [calls.submit(divmod, number, 2).result(10) for number in (5, 6)] == [(2, 1), (3, 0)]
    with pytest.raises(ZeroDivisionError):
        calls.submit(divmod, 1, 0).result(10)
