"""Real guests by QEMU, from nothing to running and back, through the command."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.eventually import eventually_sync
from tests.support.stack import Stack

pytestmark = pytest.mark.timeout(600)
BOOT_SECONDS = 150.0
MEMORY = "128M"


def _create(stack: Stack, name: str, *words: str | Path) -> dict[str, Any]:
    stack.moln("vm", "create", name, "--image", "guest", "--memory", MEMORY, "--cpu-percent", "20", "--wait", *words)
    vm: dict[str, Any] = stack.read("vm", "show", name)
    return vm


def _says(stack: Stack, name: str, pattern: str) -> str:
    """Waits for the guest to write something on its console; returns the whole log."""

    def found() -> str:
        log = stack.moln("vm", "console", name, "--log")
        return log if re.search(pattern, log) else ""

    return eventually_sync(found, what=f"{name} writes {pattern}", within=BOOT_SECONDS)


def _qemus(stack: Stack) -> dict[str, int]:
    """uid → process id of the guests that QEMU runs for this stack."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_text().split("\0") if entry.name.isdigit() else []
        except OSError:
            continue
        if words and "qemu-system" in words[0] and str(stack.path) in " ".join(words) and "-uuid" in words:
            found[words[words.index("-uuid") + 1]] = int(entry.name)
    return found


def _gone(stack: Stack, name: str) -> None:
    stack.moln("vm", "terminate", name, "--hard", "--yes", "--wait")


def test_a_guest_boots_reads_its_context_and_answers_on_its_network(real_stack: Stack, tmp_path: Path) -> None:
    script = tmp_path / "start.sh"
    script.write_text('#!/bin/sh\necho "start script: $GREETING"\n')
    greeting = 'it\'s "quoted" $HOME `id`'
    vm = _create(real_stack, "web", "--start-script", script, "--variable", f"GREETING={greeting}")
    log = _says(real_stack, "web", r"moln-guest: .*ready")
    assert "hostname=web" in log
    assert f"={vm['view']['ipv4']}/" in log
    assert f"start script: {greeting}" in log
    done = real_stack.processes.start(["ping", "-c", "2", "-W", "5", vm["view"]["ipv4"]], name="ping")
    assert done.wait(30) == 0, real_stack.processes.output("ping")
    _gone(real_stack, "web")


def test_a_guest_is_powered_off_and_on_with_the_same_address_and_disk(real_stack: Stack) -> None:
    before = _create(real_stack, "cycle")
    _says(real_stack, "cycle", r"moln-guest: .*ready")
    real_stack.moln("vm", "poweroff", "cycle", "--wait")
    assert before["uid"] not in _qemus(real_stack)
    real_stack.moln("vm", "resume", "cycle", "--wait")
    after = real_stack.read("vm", "show", "cycle")
    assert after["view"]["ipv4"] == before["view"]["ipv4"]
    assert before["uid"] in _qemus(real_stack)
    assert int(after["statuses"][0]["attempt"]) == 2
    _gone(real_stack, "cycle")


def test_an_agent_killed_under_a_running_guest_adopts_it(real_stack: Stack) -> None:
    vm = _create(real_stack, "adopted")
    _says(real_stack, "adopted", r"moln-guest: .*ready")
    process = _qemus(real_stack)[vm["uid"]]
    agent = real_stack.pid("node")
    os.kill(agent, signal.SIGKILL)
    eventually_sync(lambda: real_stack.pid("node") not in (0, agent), what="another agent runs")
    eventually_sync(
        lambda: (
            real_stack.read("host", "show", "node-1")["view"]["state"] == "UP"
            and real_stack.read("vm", "show", "adopted")["view"]["state"] == "RUNNING"
        ),
        what="host and guest are known again",
        within=60,
    )
    assert _qemus(real_stack)[vm["uid"]] == process, "the guest was started anew"
    assert real_stack.read("vm", "show", "adopted")["statuses"][0]["attempt"] == 1
    _gone(real_stack, "adopted")


def test_a_guest_that_is_killed_behind_molns_back_is_started_again(real_stack: Stack) -> None:
    vm = _create(real_stack, "killed")
    os.kill(_qemus(real_stack)[vm["uid"]], signal.SIGKILL)
    eventually_sync(lambda: _runs_again(real_stack, "killed"), what="it runs a second time", within=90)
    _gone(real_stack, "killed")


def test_after_termination_nothing_of_a_guest_is_left(real_stack: Stack) -> None:
    vm = _create(real_stack, "last")
    _gone(real_stack, "last")
    assert real_stack.run("vm", "show", "last").returncode == 4
    assert vm["uid"] not in _qemus(real_stack)
    assert not [path for path in real_stack.folder.state_of("node").rglob("*") if vm["uid"] in str(path)]
    assert real_stack.read("net", "leases", "default") == []
    assert real_stack.read("user", "show", "admin").get("usage", {}) == {}


def test_an_image_in_use_cannot_be_deleted(real_stack: Stack) -> None:
    _create(real_stack, "user-of-image", "--no-net")
    refused = real_stack.run("image", "delete", "guest", "--yes")
    assert refused.returncode == 5
    assert "user-of-image" in refused.stderr or "use" in refused.stderr
    _gone(real_stack, "user-of-image")


def _runs_again(stack: Stack, name: str) -> bool:
    vm = stack.read("vm", "show", name)
    attempts = [int(status.get("attempt", 0)) for status in vm.get("statuses", [])]
    return attempts == [2] and vm["view"]["state"] == "RUNNING"
