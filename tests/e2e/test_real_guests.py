"""Real guests by QEMU, by the command line: they boot, read their context, talk, and survive their agent."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.devstack.cleanup import leftovers
from services.devstack.findings import mounts_under
from tests.support.eventually import eventually_sync
from tests.support.real import needs_root, programs, real_part
from tests.support.stack import Stack, a_stack

pytestmark = pytest.mark.timeout(600)
ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = """\
cpu_percent: 20
memory_mib: 128
disks: [{image: guest}]
context:
  variables: {QUOTED: "it's $(reboot) \\"quoted\\""}
  start_script: echo "the variable is $QUOTED"
"""


@pytest.fixture(scope="module")
def real_stack() -> Iterator[Stack]:
    real_part("QEMU", programs("qemu-system-x86_64", "qemu-img", "libvirtd", "busybox", "xorriso"))
    real_part("root", needs_root)
    with a_stack("--real-host") as stack:
        image = stack.path.parent / "guest.qcow2"
        command = [sys.executable, "-m", "services.devstack.guestimage", "--output", str(image)]
        subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
        stack.moln("image", "create", "guest", "--path", image)
        (stack.path.parent / "guest.yaml").write_text(TEMPLATE)
        yield stack


@pytest.fixture
def stack(real_stack: Stack) -> Iterator[Stack]:
    yield real_stack
    if real_stack.read("vm", "list"):
        real_stack.moln("vm", "terminate", "--filter", "name=*", "--hard", "--yes", "--wait")


def create(stack: Stack, name: str, *words: str) -> None:
    stack.moln("vm", "create", name, "-f", stack.path.parent / "guest.yaml", "--wait", *words)


def until_logged(stack: Stack, vm: str, pattern: str) -> str:
    """The console's log, once it shows the pattern."""

    def seen() -> str:
        log = stack.run("vm", "console", vm, "--log").stdout
        return log if re.search(pattern, log) else ""

    return eventually_sync(seen, what=f"{vm} shows {pattern}", within=120)


def guests(stack: Stack) -> set[int]:
    """Process ids of QEMU."""
    return {item.pid for item in leftovers(stack.folder) if item.title.startswith("qemu")}


def test_a_guest_reads_its_context_and_nothing_of_it_reaches_a_shell_unquoted(stack: Stack) -> None:
    create(stack, "web")
    log = until_logged(stack, "web", "moln-guest: .*ready")
    address = stack.read("vm", "show", "web")["view"]["ipv4"]
    assert f"hostname=web eth0={address}/" in log
    assert 'the variable is it\'s $(reboot) "quoted"' in log


def test_what_is_typed_on_the_console_is_answered(stack: Stack) -> None:
    create(stack, "web")
    until_logged(stack, "web", "moln-guest: .*ready")
    words = [sys.executable, "-m", "services.cli", "--cloud", str(stack.path), "vm", "console", "web"]
    process = subprocess.Popen(words, env=stack.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"echo $((6 * 7)) is the answer\n")
    process.stdin.flush()
    found = any(b"42 is the answer" in line for line in process.stdout)
    process.kill()
    process.communicate()
    assert found


def test_ssh_finds_the_address_and_runs_a_command(stack: Stack, folder: Path) -> None:
    real_part("ssh", programs("ssh", "ssh-keygen"))
    key = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    create(stack, "web", "--ssh-key", f"{key}.pub")
    until_logged(stack, "web", "moln-guest: .*ready")
    answered = eventually_sync(
        lambda: stack.run("vm", "ssh", "web", "-i", key, "--", "hostname").stdout.strip(), within=120
    )
    assert answered == "web"


def test_power_off_and_on_keeps_disk_and_address(stack: Stack) -> None:
    create(stack, "web")
    until_logged(stack, "web", "moln-guest: .*ready")
    before = stack.read("vm", "show", "web")["view"]["ipv4"]
    stack.moln("vm", "poweroff", "web", "--wait")
    assert guests(stack) == set()
    stack.moln("vm", "resume", "web", "--wait")
    assert stack.read("vm", "show", "web")["view"]["ipv4"] == before
    assert len(guests(stack)) == 1


def test_guests_run_on_while_their_agent_is_killed_and_are_adopted(stack: Stack) -> None:
    create(stack, "web")
    create(stack, "db")
    running = guests(stack)
    assert len(running) == 2
    former = stack.pid("node")
    stack.kill("node")
    eventually_sync(lambda: stack.pid("node") not in (0, former))
    eventually_sync(lambda: {vm["view"]["state"] for vm in stack.read("vm", "list")} == {"RUNNING"}, within=60)
    assert guests(stack) == running
    stack.moln("vm", "terminate", "web", "db", "--hard", "--yes", "--wait")
    assert guests(stack) == set()


def test_kept_guests_run_on_without_the_stack_and_are_adopted_by_the_next(stack: Stack) -> None:
    create(stack, "web")
    stack.down()
    stack.up("--keep-guests")
    stack.moln("vm", "wait", "web")
    running = guests(stack)
    assert len(running) == 1
    stack.down()
    assert guests(stack) == running
    assert stack.run_as({}, "doctor", "--state", str(stack.path)).returncode == 0
    stack.up()
    stack.moln("vm", "wait", "web")
    assert guests(stack) == running


def test_the_end_of_a_stack_leaves_no_process_bridge_or_mount(stack: Stack) -> None:
    create(stack, "web")
    bridges = {network["spec"]["bridge"] for network in stack.read("net", "list")}
    assert any(Path(f"/sys/class/net/{name}").exists() for name in bridges)
    stack.down()
    assert leftovers(stack.folder) == []
    assert [name for name in bridges if Path(f"/sys/class/net/{name}").exists()] == []
    assert mounts_under(stack.path) == []
    tables = subprocess.run(["nft", "list", "tables"], check=True, capture_output=True, text=True).stdout
    assert [name for name in bridges if name in tables] == []
    stack.up()
    stack.moln("vm", "wait", "web")
    stack.moln("vm", "terminate", "web", "--hard", "--yes", "--wait")
    tables = subprocess.run(["nft", "list", "tables"], check=True, capture_output=True, text=True).stdout
    assert [name for name in bridges if name in tables] == []
