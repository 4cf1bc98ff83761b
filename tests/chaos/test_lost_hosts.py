"""Hosts that are lost in every way: what ran there is UNKNOWN, and starts elsewhere on proof and never without."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import hypervisors
from tests.chaos.machines import PROMISE_S, Machine
from tests.support.eventually import eventually_sync
from tests.support.stack import Stack, a_stack

UNKNOWN_S = 15.0
"""A lost host's VMs are UNKNOWN within that time."""
ELSEWHERE_S = 60.0
"""They run elsewhere within that time of the proof."""
MARGIN_S = 1.0
FENCE = """#!/bin/sh
# Pulls the plug of a simulated machine: its agent is killed, and its journal says that it has gone down.
[ ! -e "$MOLN_BROKEN" ] || { echo "the power strip does not answer" >&2; exit 75; }
kill -KILL "$(cat "$MOLN_PID_FILE")" 2>/dev/null
printf 'B\\t%s\\tfenced-%s\\t%s\\n' "$MOLN_HOST_ID" "$(date +%N)" "$(date +%s.%3N)" >>"$MOLN_JOURNAL"
"""

Boot = Callable[..., Machine]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    scripts = tmp_path_factory.mktemp("scripts")
    scripts.chmod(0o755)
    (scripts / "fence").write_text(FENCE)
    (scripts / "fence").chmod(0o755)
    environment = {
        "MOLN_API_HOST_SCRIPT_FOLDER": str(scripts), "MOLN_API_SELF_FENCE_MARGIN_S": str(MARGIN_S),
    }  # fmt: skip
    with a_stack("--sim-hosts", "0", "--no-real-host", environment=environment) as running:
        yield running


@pytest.fixture
def boot(stack: Stack, folder: Path) -> Iterator[Boot]:
    """Boots machines; afterwards they are gone from the cloud too."""
    machines: list[Machine] = []

    def booted(name: str, **fields: Any) -> Machine:
        machine = Machine(stack, folder, name, **fields)
        machines.append(machine)
        machine.start()
        return machine

    yield booted
    for machine in machines:
        machine.close()
    for machine in machines:  # too many that are silent at once would suspend the watchdogs of the next test
        eventually_sync(partial(_is_written_off, stack, machine.name), what=f"{machine.name} is written off")


def _is_written_off(stack: Stack, name: str) -> bool:
    return stack.run("host", "fence", name, "--confirmed").returncode == 0


def with_fence(stack: Stack, machine: Machine) -> Path:
    """Gives the machine a fence command; the file that breaks its power strip."""
    broken = machine.pid_file.with_name("broken")
    stack.moln(
        "host", "update", machine.name, "--fence-command", "fence",
        "--parameter", f"pid_file={machine.pid_file}", "--parameter", f"journal={machine.journal}",
        "--parameter", f"broken={broken}",
    )  # fmt: skip
    return broken


def create(stack: Stack, machine: Machine, policy: str = "restart") -> str:
    """A VM that runs on that machine, and would run on others; its name."""
    name = f"{policy}-{machine.name}"
    for other in stack.read("host", "list"):
        if other["spec"]["name"] != machine.name:
            stack.moln("host", "disable", other["spec"]["name"])
    stack.moln("vm", "create", name, "--no-net", "--memory", "64M", "--on-host-loss", policy, "--wait")
    assert view(stack, name)["host"] == machine.name
    for other in stack.read("host", "list"):
        stack.moln("host", "enable", other["spec"]["name"])
    return name


def view(stack: Stack, name: str) -> dict[str, Any]:
    """The view of a VM."""
    found: dict[str, Any] = stack.read("vm", "show", name)["view"]
    return found


def becomes_unknown(stack: Stack, name: str, since: float) -> None:
    """In time."""
    eventually_sync(lambda: view(stack, name)["state"] == "UNKNOWN", what=f"{name} is UNKNOWN")
    assert time.monotonic() - since < UNKNOWN_S + 2.0, "a lost host's VM was shown as running for too long"


def runs_on(stack: Stack, name: str, machine: Machine, within: float = ELSEWHERE_S) -> None:
    """In the cloud's eyes and in the machine's journal."""

    def is_there() -> bool:
        seen = view(stack, name)
        return (seen["state"], seen.get("host")) == ("RUNNING", machine.name)

    eventually_sync(is_there, what=f"{name} runs on {machine.name}", within=within)
    assert uid_of(stack, name) in hypervisors.running(machine.journal)


def uid_of(stack: Stack, name: str) -> str:
    """The uid of a VM."""
    return str(stack.read("vm", "show", name)["uid"])


def check_never_twice(*machines: Machine) -> None:
    """By the journals, which say what was, whatever the cloud believed."""
    assert hypervisors.ever_twice(*(machine.journal for machine in machines)) == set()


@pytest.mark.timeout(300)
def test_a_killed_agents_guests_run_elsewhere_once_the_fence_command_has_succeeded(stack: Stack, boot: Boot) -> None:
    first, second = boot("kill-1"), boot("kill-2")
    broken = with_fence(stack, first)
    db = create(stack, first)
    pet = create(stack, first, "leave")
    broken.touch()
    lost = time.monotonic()
    first.signal(signal.SIGKILL)
    becomes_unknown(stack, db, lost)
    eventually_sync(lambda: "power strip" in str(first.host().get("operation", {}).get("message", "")), within=60)
    assert view(stack, db)["host"] == "kill-1", "it was started elsewhere without proof"
    assert uid_of(stack, db) in hypervisors.running(first.journal), "the guest of a killed agent runs on"
    broken.unlink()
    eventually_sync(lambda: first.state() == "FENCED", what="the fence is tried again", within=90)
    runs_on(stack, db, second)
    assert (view(stack, pet)["state"], view(stack, pet)["reason"]) == ("UNKNOWN", "HOST_FENCED")
    check_never_twice(first, second)
    first.start()
    runs_on(stack, pet, first)
    assert view(stack, db)["host"] == "kill-2"
    eventually_sync(lambda: uid_of(stack, db) not in hypervisors.present(first.journal), what="the old one is erased")
    check_never_twice(first, second)


@pytest.mark.timeout(300)
@pytest.mark.long
def test_a_stopped_agents_machine_resets_itself_before_its_guests_run_elsewhere(stack: Stack, boot: Boot) -> None:
    first, second = boot("stop-1", has_watchdog=True), boot("stop-2", has_watchdog=True)
    db = create(stack, first)
    lost = time.monotonic()
    first.signal(signal.SIGSTOP)
    becomes_unknown(stack, db, lost)
    runs_on(stack, db, second, within=ELSEWHERE_S + PROMISE_S)
    assert first.reset_at, "it runs elsewhere, and its machine was never reset"
    assert first.host()["liveness"]["proof"] == "self_fence"
    assert second.reset_at == 0.0, "a sound machine was reset"
    check_never_twice(first, second)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_machine_that_is_cut_off_resets_itself(stack: Stack, boot: Boot) -> None:
    first, second = boot("cut-1", has_watchdog=True), boot("cut-2", has_watchdog=True)
    db = create(stack, first)
    lost = time.monotonic()
    first.proxy.cut()
    becomes_unknown(stack, db, lost)
    runs_on(stack, db, second, within=ELSEWHERE_S + PROMISE_S)
    assert 0 < first.reset_at <= lost + PROMISE_S + 1.0, "the promise was not kept"
    first.proxy.heal()
    first.start()
    eventually_sync(lambda: uid_of(stack, db) not in hypervisors.present(first.journal), what="the old one is erased")
    check_never_twice(first, second)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_without_proof_nothing_starts_elsewhere_and_the_guest_is_found_again(stack: Stack, boot: Boot) -> None:
    first, second = boot("heal-1"), boot("heal-2")
    db = create(stack, first)
    lost = time.monotonic()
    first.proxy.cut()
    becomes_unknown(stack, db, lost)
    eventually_sync(lambda: time.monotonic() > lost + 40, what="more time than any proof would need", within=60)
    assert (view(stack, db)["state"], view(stack, db)["host"]) == ("UNKNOWN", "heal-1")
    first.proxy.heal()
    runs_on(stack, db, first)
    assert uid_of(stack, db) not in hypervisors.running(second.journal)
    check_never_twice(first, second)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_machine_that_has_booted_anew_starts_its_guests_itself(stack: Stack, boot: Boot) -> None:
    first, second = boot("boot-1"), boot("boot-2")
    db = create(stack, first)
    first.power_loss()
    eventually_sync(lambda: view(stack, db)["state"] == "UNKNOWN")
    first.start()
    runs_on(stack, db, first)
    check_never_twice(first, second)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_vm_can_lose_its_host_twice(stack: Stack, boot: Boot) -> None:
    machines = [boot(f"twice-{number}", has_watchdog=True) for number in (1, 2, 3)]
    db = create(stack, machines[0])
    machines[0].signal(signal.SIGKILL)
    eventually_sync(lambda: view(stack, db).get("host") not in ("", "twice-1"), within=60)
    eventually_sync(lambda: view(stack, db)["state"] == "RUNNING", within=60)
    (second,) = [machine for machine in machines if machine.name == view(stack, db)["host"]]
    (third,) = [machine for machine in machines[1:] if machine is not second]
    second.signal(signal.SIGKILL)
    runs_on(stack, db, third, within=ELSEWHERE_S + PROMISE_S)
    check_never_twice(*machines)
