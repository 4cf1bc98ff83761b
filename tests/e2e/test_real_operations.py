"""What operations do to a real guest by QEMU, asked for by the command line and seen inside: one guest for all."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial

import pytest

from tests.e2e.test_real_guests import until_logged
from tests.support.eventually import eventually_sync
from tests.support.stack import Stack

pytestmark = pytest.mark.timeout(400)
TEMPLATE = """\
cpu_percent: 20
memory_mib: 128
disks: [{image: guest}]
context:
  variables: {COLOUR: green}
"""
NUMBERS = 'n=0; (while :; do n=$((n+1)); echo "count=$n" >/dev/console; sleep 1; done) &'
ANSWER_SECONDS = 60.0


@pytest.fixture(scope="module")
def guest(real_stack: Stack) -> Iterator[Stack]:
    """The stack with `web`, which has booted."""
    file = real_stack.path.parent / "web.yaml"
    file.write_text(TEMPLATE)
    real_stack.moln("vm", "create", "web", "-f", file, "--wait")
    until_logged(real_stack, "web", "moln-guest: .*ready")
    yield real_stack
    real_stack.moln("vm", "terminate", "web", "--hard", "--yes", "--wait")


def console(stack: Stack, command: str, mark: str) -> None:
    """Types a command on the console, and waits until its log shows the mark in a line of its own."""
    words = [sys.executable, "-m", "services.cli", "--cloud", str(stack.path), "vm", "console", "web"]
    process = subprocess.Popen(words, env=stack.environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.stdin is not None
    try:
        process.stdin.write(f"{command}\n".encode())
        process.stdin.flush()
        eventually_sync(lambda: mark in lines(stack), what=f"{command} shows {mark}", within=ANSWER_SECONDS)
    finally:
        process.kill()
        process.communicate()


def lines(stack: Stack) -> list[str]:
    """Lines of the console's log."""
    return [line.strip() for line in stack.run("vm", "console", "web", "--log").stdout.splitlines()]


def has_counted_beyond(stack: Stack, number: int) -> bool:
    """Whether it has come so far."""
    return max(counts(stack), default=0) > number


def counts(stack: Stack) -> list[int]:
    """What the guest has counted since it was told to."""
    return [int(line.removeprefix("count=")) for line in lines(stack) if line.startswith("count=")]


def test_a_disk_that_is_attached_is_there_and_gone_when_it_is_detached(guest: Stack) -> None:
    guest.moln("vm", "attach-disk", "web", "size=64M", "--wait")
    disk = guest.read("vm", "show", "web")["spec"]["template"]["disks"][-1]["disk_id"]
    console(guest, "sleep 1; echo disks=$(cat /sys/block/vd*/size | grep -cx 131072)", "disks=1")
    guest.moln("vm", "detach-disk", "web", str(disk), "--yes", "--wait")
    console(guest, "sleep 1; echo left=$(cat /sys/block/vd*/size | grep -cx 131072)", "left=0")


def test_an_interface_that_is_attached_is_there_and_gone_when_it_is_detached(guest: Stack) -> None:
    guest.moln("vm", "attach-nic", "web", "default", "--wait")
    nic = guest.read("vm", "show", "web")["spec"]["template"]["nics"][-1]["nic_id"]
    console(guest, "sleep 1; echo nics=$(ls -d /sys/class/net/eth* | wc -l)", "nics=2")
    guest.moln("vm", "detach-nic", "web", str(nic), "--wait")
    console(guest, "sleep 1; echo nics-left=$(ls -d /sys/class/net/eth* | wc -l)", "nics-left=1")


def test_a_guest_goes_back_to_what_it_was_at_its_snapshot(guest: Stack) -> None:
    console(guest, "echo old >/run/word; echo written=$(cat /run/word)", "written=old")
    guest.moln("vm", "snapshot-create", "web", "before", "--wait")
    console(guest, "echo new >/run/word; echo changed=$(cat /run/word)", "changed=new")
    guest.moln("vm", "snapshot-revert", "web", "before", "--yes", "--wait")
    console(guest, "echo back=$(cat /run/word)", "back=old")
    guest.moln("vm", "snapshot-delete", "web", "before", "--wait")


def test_a_disk_of_a_guest_that_runs_has_a_snapshot_that_is_shown_and_goes_back_only_when_it_is_off(
    guest: Stack,
) -> None:
    guest.moln("vm", "disk-snapshot-create", "web", "0", "clean", "--wait")
    assert guest.moln("vm", "disk-snapshot-list", "web").startswith("disk 0  clean")
    refused = guest.run("vm", "disk-snapshot-revert", "web", "0", "clean", "--yes")
    assert (refused.returncode, "allowed in POWERED_OFF" in refused.stderr) == (5, True), refused.stderr
    guest.moln("vm", "disk-snapshot-delete", "web", "0", "clean", "--wait")
    assert guest.moln("vm", "disk-snapshot-list", "web") == ""


def test_a_guest_that_counts_goes_on_counting_after_a_suspend_and_after_a_stop(guest: Stack) -> None:
    console(guest, f"{NUMBERS} echo on-disk >/data/word; sync", "count=3")
    for verb, state in (("suspend", "SUSPENDED"), ("stop", "STOPPED")):
        before = counts(guest)[-1]
        guest.moln("vm", verb, "web", "--wait")
        assert guest.read("vm", "show", "web")["view"]["state"] == state
        guest.moln("vm", "resume", "web", "--wait")
        eventually_sync(partial(has_counted_beyond, guest, before + 2), within=ANSWER_SECONDS)
        assert "count=1" not in lines(guest)[-3:], "it began anew"
    numbers = counts(guest)
    assert numbers == sorted(numbers)
