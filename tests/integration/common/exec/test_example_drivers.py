"""Scripts of one request: those in examples/drivers, and small ones that do it wrong."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.common.exec import ScriptError, ScriptLimits, run_script
from services.common.exec.protocol import Progress
from tests.support.eventually import eventually, eventually_sync
from tests.support.processes import Processes

DRIVERS = Path(__file__).resolve().parents[4] / "examples" / "drivers"
PIDFILE, IPMI = DRIVERS / "pidfile", DRIVERS / "ipmi"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('x', flush=True); time.sleep(3600)"


@pytest.fixture
def sh(folder: Path) -> Callable[[str], Path]:
    """Makes a script in sh."""

    def make(body: str) -> Path:
        file = folder / f"script-{len(list(folder.iterdir()))}"
        file.write_text(f"#!/bin/sh\n{body}\n")
        file.chmod(0o700)
        return file

    return make


@pytest.fixture
def machine(folder: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A process that stands for a machine, deaf to SIGTERM, and the file of its number."""
    process = subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    file = folder / "machine.pid"
    file.write_text(f"{process.pid}\n")
    yield file, process
    process.kill()
    process.communicate()


async def test_the_answer_is_the_line_that_it_says(sh: Callable[[str], Path]) -> None:
    script = sh('read -r line; echo "{\\"result\\": {\\"method\\": \\"$1\\", \\"got\\": $line}}"')
    answer = await run_script([script], "ask", {"a": [1]})
    assert answer["method"] == "ask"
    assert (answer["got"]["method"], answer["got"]["params"]) == ("ask", {"a": [1]})


async def test_without_a_line_the_exit_status_is_the_answer(sh: Callable[[str], Path]) -> None:
    assert await run_script([sh("exit 0")], "ask") == {}
    for status, is_retryable in ((1, False), (75, True)):
        with pytest.raises(ScriptError, match=f"ask: exit status {status}: no luck") as caught:
            await run_script([sh(f"echo starting >&2; echo no luck >&2; exit {status}")], "ask")
        assert (caught.value.is_retryable, caught.value.may_be_done) == (is_retryable, False)


async def test_a_result_beside_a_bad_exit_status_is_no_result(sh: Callable[[str], Path]) -> None:
    with pytest.raises(ScriptError, match="exit status 1"):
        await run_script([sh("echo '{\"result\": {}}'; exit 1")], "ask")


async def test_its_error_has_a_reason(sh: Callable[[str], Path]) -> None:
    script = sh('echo \'{"error": {"reason": "BUSY_BMC", "message": "try later", "retryable": true}}\'')
    with pytest.raises(ScriptError, match="ask: try later") as caught:
        await run_script([script], "ask")
    assert (caught.value.reason, caught.value.is_retryable) == ("BUSY_BMC", True)


async def test_one_that_hangs_is_stopped_with_its_children(sh: Callable[[str], Path], folder: Path) -> None:
    script = sh(f"sleep 3600 & echo $! >{folder}/child; wait")
    with pytest.raises(ScriptError, match=r"did not end within 0.5 s and was stopped; it may have been done") as caught:
        await run_script([script], "ask", limits=ScriptLimits(request_s=0.5))
    assert caught.value.may_be_done
    child = int((folder / "child").read_text())
    await eventually(lambda: not Path(f"/proc/{child}").exists())


async def test_one_that_is_killed_may_have_done_it(sh: Callable[[str], Path]) -> None:
    with pytest.raises(ScriptError, match="killed by signal 9") as caught:
        await run_script([sh("kill -KILL $$")], "ask")
    assert caught.value.may_be_done


async def test_one_that_floods_is_stopped(sh: Callable[[str], Path]) -> None:
    with pytest.raises(ScriptError, match="too long"):
        await run_script([sh("head -c 3000000 /dev/zero | tr '\\0' x")], "ask")
    with pytest.raises(ScriptError, match="too much that is no message"):
        await run_script([sh("yes")], "ask")


async def test_a_child_that_keeps_the_output_open_does_not_delay_the_answer(sh: Callable[[str], Path]) -> None:
    async with asyncio.timeout(20):
        assert await run_script([sh('sleep 3600 & echo \'{"result": {"a": 1}}\'')], "ask") == {"a": 1}


async def test_one_that_is_not_there_or_no_program_is_named(folder: Path) -> None:
    with pytest.raises(ScriptError, match="there is no such program"):
        await run_script([folder / "nowhere"], "ask")
    (folder / "text").write_text("no program")
    (folder / "text").chmod(0o700)
    with pytest.raises(ScriptError, match="cannot be started: Exec format error"):
        await run_script([folder / "text"], "ask")


async def test_fence_kills_a_machine_that_power_off_cannot_end(
    machine: tuple[Path, subprocess.Popen[bytes]],
) -> None:
    file, process = machine
    params = {"pid_file": str(file), "grace_s": 0}
    assert await run_script([PIDFILE], "status", params) == {"power": "on"}
    with pytest.raises(ScriptError, match="has not ended within 0 s") as caught:
        await run_script([PIDFILE], "power_off", params)
    assert caught.value.is_retryable
    assert process.poll() is None
    assert await run_script([PIDFILE], "fence", params) == {}
    assert process.wait() == -signal.SIGKILL
    assert await run_script([PIDFILE], "status", params) == {"power": "off"}
    assert await run_script([PIDFILE], "fence", params) == {}, "fencing what is off is no error"


async def test_a_number_that_was_given_out_again_is_not_killed(machine: tuple[Path, subprocess.Popen[bytes]]) -> None:
    file, process = machine
    assert await run_script([PIDFILE], "fence", {"pid_file": str(file), "program": "qemu-system-x86"}) == {}
    assert process.poll() is None


async def test_a_machine_is_powered_on_and_outlives_the_script(folder: Path, running: Processes) -> None:
    start = folder / "start"
    start.write_text(f'#!/bin/sh\nMOLN_TEST_MARK={running.mark} sleep 3600 &\necho $! >"$1"\n')
    start.chmod(0o700)
    params = {"pid_file": str(folder / "pid"), "start": str(start)}
    await run_script([PIDFILE], "power_on", params)
    assert await run_script([PIDFILE], "status", params) == {"power": "on"}
    await run_script([PIDFILE], "power_off", params)
    assert await run_script([PIDFILE], "status", params) == {"power": "off"}


@pytest.mark.parametrize(("method", "words"), [("dance", "there is no method dance"), ("fence", "pid_file is missing")])
async def test_bad_requests_are_refused_with_the_remedy(method: str, words: str, folder: Path) -> None:
    params = {"pid_file": str(folder / "x")} if method == "dance" else {}
    with pytest.raises(ScriptError, match=words):
        await run_script([PIDFILE], method, params)


CONTROLLER = """
case "$*" in
*status) echo "Chassis Power is $(cat {state})" ;;
*off) [ -e {folder}/stuck ] || echo off >{state} ;;
*on) echo on >{state} ;;
esac
echo "$*" >>{folder}/calls
"""


async def test_ipmi_is_certain_only_when_the_controller_says_off(sh: Callable[[str], Path], folder: Path) -> None:
    state = folder / "power"
    state.write_text("on\n")
    tool = sh(CONTROLLER.format(state=state, folder=folder))
    password = folder / "password"
    password.write_text("x")
    password.chmod(0o600)
    params = {"address": "bmc-1", "command": str(tool), "password_file": str(password), "wait_s": 0.1}
    (folder / "stuck").touch()
    heard: list[Progress] = []
    with pytest.raises(ScriptError, match="bmc-1 says that the power is on, not off") as caught:
        await run_script([IPMI], "fence", params, on_progress=heard.append)
    assert caught.value.is_retryable
    assert heard
    (folder / "stuck").unlink()
    await run_script([IPMI], "fence", params)
    assert await run_script([IPMI], "status", params) == {"power": "off"}
    await run_script([IPMI], "power_on", params)
    assert await run_script([IPMI], "status", params) == {"power": "on"}
    calls = (folder / "calls").read_text().splitlines()
    assert f"-I lanplus -H bmc-1 -U ADMIN -f {password} chassis power off" in calls


async def test_ipmi_takes_no_password_that_others_can_read(folder: Path) -> None:
    password = folder / "password"
    password.write_text("x")
    password.chmod(0o644)
    with pytest.raises(ScriptError, match="can be read by others: chmod 600"):
        await run_script([IPMI], "status", {"address": "bmc-1", "password_file": str(password)})


OURS = """
import asyncio, sys
from services.common.exec import run_script
asyncio.run(run_script([sys.argv[1]], "ask"))
"""


def test_a_kill_of_our_side_leaves_nothing(sh: Callable[[str], Path], folder: Path) -> None:
    script = sh(f"sleep 3600 & echo $! $$ >{folder}/pids; wait")
    ours = subprocess.Popen([sys.executable, "-c", OURS, str(script)], cwd=DRIVERS.parents[1])
    try:
        eventually_sync(lambda: (folder / "pids").exists() and (folder / "pids").read_text().endswith("\n"))
        pids = [int(each) for each in (folder / "pids").read_text().split()]
    finally:
        ours.kill()
        ours.wait()
    eventually_sync(lambda: not any(is_there(pid) for pid in pids), what="the script and its child are gone")


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
