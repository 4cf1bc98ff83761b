"""Looking into real guests by the command line: screen, picture, agent."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.e2e.test_real_guests import create, real_stack, until_logged  # noqa: F401  a fixture
from tests.support.eventually import eventually_sync
from tests.support.stack import Stack

pytestmark = pytest.mark.timeout(600)
RFB = b"RFB 003.008\n"
SCREEN = "graphics: {type: vnc}\n"


@pytest.fixture(scope="module")
def stack(real_stack: Stack) -> Iterator[Stack]:  # noqa: F811  the fixture
    """A stack with one guest that has a screen and an agent, and one that has neither."""
    shape = real_stack.path.parent / "guest.yaml"
    shape.write_text(shape.read_text() + SCREEN)
    create(real_stack, "web")
    real_stack.moln("vm", "create", "bare", "--memory", "32M", "--no-net", "--wait", "--cpu-percent", "10")
    until_logged(real_stack, "web", "moln-guest: .*ready")
    yield real_stack
    real_stack.moln("vm", "terminate", "web", "bare", "--hard", "--yes", "--wait")


def test_a_viewer_reaches_the_screen_by_a_local_port(stack: Stack) -> None:
    words = [sys.executable, "-m", "services.cli", "--cloud", str(stack.path), "vm", "vnc", "web"]
    door = subprocess.Popen(words, env=stack.environment, stderr=subprocess.PIPE, text=True)
    try:
        assert door.stderr is not None
        said = door.stderr.readline()
        port = int(said.split("127.0.0.1::")[1].split()[0])
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as viewer:
                assert viewer.recv(12) == RFB
                viewer.sendall(RFB)
                assert viewer.recv(2) == b"\x01\x01"
    finally:
        door.kill()
        door.communicate()


def test_a_picture_of_the_screen_is_written(stack: Stack) -> None:
    target = stack.path.parent / "web.png"
    stack.moln("vm", "screenshot", "web", "-o", target)
    content = target.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(content) > 100
    refused = stack.run("vm", "screenshot", "bare", "-o", target)
    assert refused.returncode == 5
    assert "graphics" in refused.stderr


def test_a_command_runs_in_the_guest_and_its_exit_code_is_ours(stack: Stack) -> None:
    eventually_sync(lambda: stack.run("vm", "ping", "web").returncode == 0, within=60, what="the agent answers")
    ran = stack.run("vm", "exec", "web", "--", "sh", "-c", "hostname; exit 3")
    assert (ran.returncode, ran.stdout) == (3, "web\n")
    silent = stack.run("vm", "exec", "bare", "--", "true")
    assert silent.returncode != 0
    assert "qemu-guest-agent" in silent.stderr


def test_the_agents_address_is_shown_beside_the_lease(stack: Stack) -> None:
    def told() -> bool:
        vm = stack.read("vm", "show", "web")
        return bool(vm["statuses"][0].get("guest_addresses") == [vm["view"]["ipv4"]])

    eventually_sync(told, within=60, what="the agent's address is in the status")


def test_a_host_without_guests_of_others_says_so(stack: Stack) -> None:
    (host,) = stack.read("host", "list")
    answered = stack.run("host", "guests", host["spec"]["name"])
    assert (answered.returncode, answered.stdout) == (0, "")
    assert "no guests but moln's own" in answered.stderr


def test_writes_are_held_and_go_on(stack: Stack) -> None:
    assert "frozen" in stack.run("vm", "freeze", "web").stdout
    assert "thawed" in stack.run("vm", "thaw", "web").stdout
    assert stack.run("vm", "exec", "web", "--", "true").returncode == 0
