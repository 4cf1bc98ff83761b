"""`make demo` shows all that it promises and leaves nothing, also when it is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from services.common import stacks
from tests.support.eventually import eventually_sync
from tests.support.processes import Processes
from tests.support.real import needs_root, programs, real_part

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]
DEMO = [sys.executable, "-m", "services.devstack.demo"]


@pytest.fixture(autouse=True)
def real() -> None:
    real_part("QEMU", programs("qemu-system-x86_64", "qemu-img", "libvirtd", "busybox", "xorriso"))
    real_part("root", needs_root)


def traces() -> set[str]:
    """Folders of demos."""
    return {path.name for path in Path(tempfile.gettempdir()).glob("moln-demo-*")}


def test_the_demo_shows_everything_and_leaves_nothing(folder: Path, running: Processes) -> None:
    before = traces()
    variables = {"XDG_STATE_HOME": str(folder / "state")}
    done = subprocess.run(DEMO, env=running.environment(variables), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0% packet loss" in done.stdout
    assert "The guest knows its host name, its address, the number of this run." in done.stdout
    assert traces() == before
    assert running.alive() == []
    assert stacks.known(variables) == []


def test_an_interrupted_demo_leaves_nothing(folder: Path, running: Processes) -> None:
    before = traces()
    child = running.start(DEMO, env={"XDG_STATE_HOME": str(folder / "state")}, name="demo")
    eventually_sync(lambda: "moln vm create" in running.output("demo"), within=120)
    os.killpg(child.pid, signal.SIGINT)
    assert child.wait(timeout=120) == 130
    assert traces() == before
    eventually_sync(lambda: running.alive() == [])
