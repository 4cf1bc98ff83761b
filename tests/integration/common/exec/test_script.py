"""Scripts that are kept running, real ones: what they say, what becomes of it when they hang, die, talk nonsense."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from services.common.exec import Script, ScriptError, ScriptLimits
from services.common.exec.protocol import Progress
from services.common.runtime.loop import Backoff
from tests.support.eventually import eventually, eventually_sync

ROOT = Path(__file__).resolve().parents[4]
SLEEPER = ROOT / "examples" / "drivers" / "sleeper"
UNRULY = Path(__file__).parent / "scripts" / "unruly"
QUICK = Backoff(first=0.01, most=0.05)


class Tally:
    """Counts what a script's metrics say. Implements ScriptMetrics."""

    def __init__(self) -> None:
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.deaths = 0
        self.nonsense = 0

    def answered(self, script: str, method: str, outcome: str, seconds: float) -> None:
        self.outcomes[method, outcome] += 1

    def died(self, script: str) -> None:
        self.deaths += 1

    def garbage(self, script: str) -> None:
        self.nonsense += 1


@pytest.fixture
def tally() -> Tally:
    return Tally()


@pytest.fixture
def unruly(folder: Path, tally: Tally) -> Callable[..., Script]:
    def make(limits: ScriptLimits | None = None, **variables: str) -> Script:
        return Script(
            [UNRULY], name="unruly", limits=limits, metrics=tally, backoff=QUICK,
            variables={"TRACE": str(folder / "trace"), **variables},
        )  # fmt: skip

    return make


@pytest.fixture
def sleeper(folder: Path) -> Callable[..., Script]:
    def make(limits: ScriptLimits | None = None) -> Script:
        return Script([SLEEPER], limits=limits, backoff=QUICK, variables={"STATE": str(folder / "state")})

    return make


def traced(folder: Path, word: str) -> list[int]:
    """The processes of the script that noted a word."""
    path = folder / "trace"
    lines = path.read_text().splitlines() if path.exists() else []
    return [int(line.split()[0]) for line in lines if line.endswith(f" {word}")]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in {"Z", "X"}
    except OSError:
        return False


async def test_a_script_says_who_it_is_and_answers(sleeper: Callable[..., Script]) -> None:
    heard: list[Progress] = []
    async with sleeper() as script:
        answer = await script.call("work", {"seconds": 0.05, "text": "å"}, on_progress=heard.append)
        assert answer == {"text": "å"}
        assert script.hello is not None
        assert (script.hello.name, script.hello.concurrency) == ("sleeper", 4)
    assert [each.percent for each in heard] == list(range(10, 101, 10))


async def test_an_error_of_the_script_reaches_the_caller_with_its_reason(unruly: Callable[..., Script]) -> None:
    async with unruly() as script:
        with pytest.raises(ScriptError, match="unruly dance: no such method") as caught:
            await script.call("dance")
    assert (caught.value.reason, caught.value.is_retryable, caught.value.may_be_done) == ("METHOD", False, False)


async def test_it_gets_no_more_at_once_than_it_declared(sleeper: Callable[..., Script]) -> None:
    async with sleeper() as script, asyncio.TaskGroup() as group:
        work = [group.create_task(script.call("work", {"seconds": 0.3})) for _ in range(6)]
        await eventually(lambda: script.hello is not None)
        first, pending = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
        assert len(first) <= 4
        assert len(pending) >= 2


async def test_a_late_request_fails_alone_and_is_cancelled(
    unruly: Callable[..., Script], folder: Path, tally: Tally
) -> None:
    async with unruly() as script:
        with pytest.raises(ScriptError, match=r"unruly ignore: it did not answer within 0.2 s") as caught:
            await script.call("ignore", timeout_s=0.2)
        assert (caught.value.reason, caught.value.is_retryable, caught.value.may_be_done) == ("TIMED_OUT", True, True)
        assert await script.call("echo", {"a": 1}) == {"a": 1}
        await eventually(lambda: traced(folder, "cancel"))
    assert len(traced(folder, "start")) == 1
    assert tally.outcomes == {("ignore", "timed_out"): 1, ("echo", "done"): 1}


async def test_a_caller_that_is_cancelled_cancels_the_request(unruly: Callable[..., Script], folder: Path) -> None:
    async with unruly() as script:
        task = asyncio.create_task(script.call("ignore"))
        await eventually(lambda: traced(folder, "ignore"))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await eventually(lambda: traced(folder, "cancel"))
        assert await script.call("echo") == {}


@pytest.mark.parametrize("method", ["hang", "ignore"])
async def test_a_script_that_does_not_answer_to_cancel_is_started_again(
    unruly: Callable[..., Script], folder: Path, tally: Tally, method: str
) -> None:
    limits = ScriptLimits(cancel_grace_s=0.2)
    async with unruly(limits, CANCEL="ignore") as script:
        with pytest.raises(ScriptError, match="TIMED_OUT|did not answer"):
            await script.call(method, timeout_s=0.5)
        await eventually(lambda: len(traced(folder, "start")) == 2)
        assert await script.call("echo", {"b": 2}) == {"b": 2}
    assert len(set(traced(folder, "start"))) == 2
    assert tally.deaths == 1


async def test_a_request_that_dies_with_its_script_says_that_it_may_have_been_done(
    unruly: Callable[..., Script], tally: Tally
) -> None:
    async with unruly() as script:
        with pytest.raises(ScriptError, match="the script died over it; it may have been done") as caught:
            await script.call("die")
        assert (caught.value.reason, caught.value.is_retryable) == ("DIED", True)
        assert await script.call("echo", {"c": 3}) == {"c": 3}
    assert tally.deaths == 1


async def test_what_was_in_flight_is_found_again_after_a_death(sleeper: Callable[..., Script], folder: Path) -> None:
    heard: list[Progress] = []
    async with sleeper() as script:
        work = asyncio.create_task(script.call("work", {"seconds": 1, "text": "kept"}, on_progress=heard.append))
        await eventually(lambda: heard)
        (pid,) = await eventually(lambda: pids_of("sleeper", folder))
        os.kill(pid, signal.SIGKILL)
        assert await work == {"text": "kept"}
        assert pids_of("sleeper", folder) != [pid]


async def test_an_answer_that_was_lost_with_our_own_side_is_found_again(
    sleeper: Callable[..., Script], folder: Path
) -> None:
    async with sleeper() as script:
        assert await script.call("work", {"seconds": 0, "text": "first"}, request_id="op-1") == {"text": "first"}
    async with sleeper() as script:
        again = await script.resume("work", {"seconds": 0, "text": "second"}, request_id="op-1")
        assert again == {"text": "first"}, "it was done a second time"
        assert await script.resume("work", {"seconds": 0, "text": "new"}, request_id="op-2") == {"text": "new"}


async def test_a_script_that_cannot_tell_what_became_of_a_request_does_not_repeat_it(
    unruly: Callable[..., Script], folder: Path
) -> None:
    async with unruly() as script:
        with pytest.raises(ScriptError, match="cannot tell what became of it"):
            await script.resume("echo", request_id="op-1")
        assert traced(folder, "echo") == []
    async with unruly(ScriptLimits(recover_s=0.2), HELLO="mute-recover") as script:
        with pytest.raises(ScriptError, match=r"did not tell within 0.2 s"):
            await script.resume("echo", request_id="op-1")
        assert await script.call("echo") == {}


async def test_a_death_is_noticed_though_a_child_of_the_script_holds_its_output(unruly: Callable[..., Script]) -> None:
    async with unruly() as script:
        await script.call("fork")
        with pytest.raises(ScriptError, match="the script died over it"):
            await script.call("die", timeout_s=20)


async def test_nonsense_is_counted_and_passed_over(unruly: Callable[..., Script], tally: Tally) -> None:
    async with unruly() as script:
        assert await script.call("garbage", {"lines": 100}) == {}
        assert tally.nonsense == 104
        assert tally.deaths == 0


async def test_a_script_that_talks_nonsense_only_is_started_again(
    unruly: Callable[..., Script], folder: Path, tally: Tally
) -> None:
    async with unruly(ScriptLimits(garbage_lines=50)) as script:
        with pytest.raises(ScriptError, match="the script died over it"):
            await script.call("garbage", {"lines": 10_000})
        assert await script.call("echo") == {}
    assert tally.nonsense == 50


async def test_a_line_that_is_too_long_ends_the_script(unruly: Callable[..., Script], tally: Tally) -> None:
    async with unruly(ScriptLimits(line_bytes=10_000)) as script:
        with pytest.raises(ScriptError, match="the script died over it"):
            await script.call("long", {"bytes": 10_000_000})
        assert await script.call("long", {"bytes": 9_000}) == {}
        with pytest.raises(ScriptError, match="more than 10000 bytes") as caught:
            await script.call("echo", {"text": "x" * 10_000})
        assert caught.value.is_retryable is False
    assert tally.deaths == 1


async def test_complaints_are_logged_within_bounds(
    unruly: Callable[..., Script], capsys: pytest.CaptureFixture[str]
) -> None:
    async with unruly(ScriptLimits(logged_lines=5, text_chars=100)) as script:
        await script.call("complain", {"lines": 2000, "bytes": 5000})
    assert capsys.readouterr().err.count("script complains") <= 5


@pytest.mark.parametrize(
    ("kind", "words"), [("none", "it said no hello within 0.3 s"), ("future", "protocol 99, and 1 is spoken here")]
)
async def test_a_script_without_a_good_hello_gets_nothing(
    unruly: Callable[..., Script], folder: Path, kind: str, words: str
) -> None:
    async with unruly(ScriptLimits(hello_s=0.3), HELLO=kind) as script:
        with pytest.raises(ScriptError, match=words) as caught:
            await script.call("echo", timeout_s=3)
    assert "was not begun" in caught.value.message
    assert traced(folder, "echo") == []


async def test_a_script_that_is_not_there_is_named() -> None:
    async with Script(["/nowhere/driver"], backoff=QUICK) as script:
        with pytest.raises(ScriptError, match="/nowhere/driver: there is no such program"):
            await script.call("echo", timeout_s=0.2)


async def test_it_is_asked_to_end_and_what_is_in_flight_is_told_so(unruly: Callable[..., Script], folder: Path) -> None:
    async with unruly() as script:
        task = asyncio.create_task(script.call("ignore"))
        await eventually(lambda: traced(folder, "ignore"))
    with pytest.raises(ScriptError, match="being shut down"):
        await task
    assert traced(folder, "shutdown")
    with pytest.raises(ScriptError, match="being shut down"):
        await script.call("echo")


async def test_one_that_does_not_end_is_ended_with_its_children(unruly: Callable[..., Script], folder: Path) -> None:
    async with unruly(ScriptLimits(stop_grace_s=0.2)) as script:
        await script.call("fork")
        pids = [*traced(folder, "start"), *await eventually(lambda: traced(folder, "fork"))]
        task = asyncio.create_task(script.call("hang"))
        await eventually(lambda: traced(folder, "hang"))
    await asyncio.gather(task, return_exceptions=True)
    await eventually(lambda: not any(is_running(pid) for pid in pids))


OURS = """
import asyncio, sys
from services.common.exec import Script

async def main():
    async with Script([sys.executable, sys.argv[1]], variables={"TRACE": sys.argv[2]}) as script:
        await script.call("fork")
        await script.call("hang")

asyncio.run(main())
"""


def test_a_kill_of_our_side_leaves_nothing(folder: Path) -> None:
    trace = folder / "trace"
    ours = subprocess.Popen([sys.executable, "-c", OURS, str(UNRULY), str(trace)], cwd=ROOT)
    try:
        eventually_sync(lambda: traced(folder, "hang"))
        pids = [*traced(folder, "start"), *eventually_sync(lambda: traced(folder, "fork"))]
        assert all(is_running(pid) for pid in pids)
    finally:
        ours.kill()
        ours.wait()
    eventually_sync(lambda: not any(is_running(pid) for pid in pids), what="the script and its child are gone")


async def test_the_environment_is_clean(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOLN_SECRET", "hunter2")
    shell = folder / "env.sh"
    shell.write_text(
        '#!/bin/sh\necho \'{"hello": {"protocol": 1}}\'\nread -r line\nenv >"$OUT"\n'
        'id=${line#*\'"id":"\'}\nprintf \'{"id": "%s", "result": {}}\\n\' "${id%%\\"*}"\ncat >/dev/null\n'
    )
    shell.chmod(0o700)
    async with Script([shell], variables={"OUT": str(folder / "out")}) as script:
        assert await script.call("x") == {}
    names = {line.split("=")[0] for line in (folder / "out").read_text().splitlines()}
    assert "MOLN_SECRET" not in names
    assert names <= {"PATH", "LANG", "HOME", "TMPDIR", "OUT", "PWD", "_", "SHLVL", "OLDPWD"}


def test_it_works_on_uvloop(folder: Path) -> None:
    async def main() -> dict[str, object]:
        async with Script([SLEEPER], variables={"STATE": str(folder)}) as script:
            return await script.call("state")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(main()) == {"working": 0}


def pids_of(name: str, folder: Path) -> list[int]:
    """Processes that run the program of that name with the test's folder in their environment; guards left out."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            is_ours = str(folder).encode() in (entry / "environ").read_bytes()
        except OSError:
            continue
        if is_ours and len(words) > 1 and words[1].endswith(f"/{name}".encode()):
            found.append(int(entry.name))
    return found
