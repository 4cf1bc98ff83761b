"""The test support itself: waits, processes and real parts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import real
from tests.support.eventually import GaveUp, eventually, eventually_sync
from tests.support.processes import Processes


async def test_a_wait_returns_what_the_check_found() -> None:
    answers = iter([0, 0, 7])
    assert await eventually(lambda: next(answers)) == 7


async def test_a_wait_takes_coroutines_and_failing_assertions() -> None:
    tries: list[int] = []

    async def check() -> bool:
        tries.append(1)
        assert len(tries) > 2
        return True

    assert await eventually(check)


async def test_a_wait_that_fails_names_what_it_waited_for_and_the_last_failure() -> None:
    def check() -> bool:
        raise AssertionError("still 3 left")

    with pytest.raises(GaveUp, match="the queue is empty: still 3 left"):
        await eventually(check, what="the queue is empty", within=0)


def test_a_process_that_left_its_group_is_stopped_too(folder: Path) -> None:
    group = Processes(folder)
    script = "import subprocess; subprocess.Popen(['sleep', '600'], start_new_session=True)"
    group.start([sys.executable, "-c", script], name="parent").wait()
    assert len(group.alive()) == 1
    group.close()
    assert group.alive() == []


def test_a_process_that_ignores_sigterm_is_killed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.processes.STOP_SECONDS", 0.2)
    group = Processes(folder)
    script = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
    child = group.start([sys.executable, "-c", script], name="deaf")
    eventually_sync(lambda: "up" in group.output("deaf"))
    group.close()
    assert child.returncode == -9


def test_what_a_killed_run_left_is_found_by_its_mark(folder: Path) -> None:
    script = (
        "import os, pathlib, sys; from tests.support.processes import Processes;"
        "g = Processes(pathlib.Path(sys.argv[1])); print(g.start(['sleep', '600']).pid, flush=True); os._exit(9)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=False)
    pid = int(done.stdout)
    assert Path(f"/proc/{pid}").exists()
    from tests.support.processes import stop_orphans

    stop_orphans()
    eventually_sync(lambda: not Path(f"/proc/{pid}").exists() or "Z" in _state(pid))


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"


def test_a_missing_real_part_skips_or_fails_as_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real, "MISSING", {})
    monkeypatch.setattr(real, "_known", {})
    monkeypatch.delenv("MOLN_REQUIRE_REAL", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no real teapot: not installed: teapot-d"):
        real.real_part("teapot", real.programs("teapot-d"))
    monkeypatch.setenv("MOLN_REQUIRE_REAL", "1")
    with pytest.raises(pytest.fail.Exception, match="teapot is required"):
        real.real_part("teapot", real.programs("teapot-d"))
    assert real.MISSING == {"teapot": "not installed: teapot-d"}
