"""Fixtures that every test may use: short temporary folders, free ports, processes that certainly end."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support import ports, processes, real

# Tests start programs by fork and exec; gRPC's own handlers at a fork would now and then break the child in between.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

# The time an example takes says nothing on a machine that does other work; failures print how to repeat them.
settings.register_profile(
    "moln", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.load_profile("moln")

KEPT_VARIABLES = frozenset({"MOLN_REQUIRE_REAL"})


def pytest_sessionstart() -> None:
    """A run starts from a clean table: no cloud of the caller's, nothing left of a run that was killed."""
    for name in [name for name in os.environ if name.startswith("MOLN_") and name not in KEPT_VARIABLES]:
        del os.environ[name]
    processes.stop_orphans()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of a run in parallel tells what it missed to the process that prints the summary."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["missing"] = dict(real.MISSING)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Hears what a worker missed; one that has died tells nothing."""
    real.MISSING.update(getattr(node, "workeroutput", {}).get("missing", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says what tests measured, and which real parts were not there: a green run without them proves less."""
    measured = [text for report in terminalreporter.getreports("passed") for text in _measured(report)]
    for title, lines in (
        ("measured on the way", measured),
        ("real parts that were missing", [f"{name}: {reason}" for name, reason in sorted(real.MISSING.items())]),
    ):
        if lines:
            terminalreporter.section(title)
        for line in lines:
            terminalreporter.line(line)


def _measured(report: pytest.TestReport) -> list[str]:
    return [str(text) for name, text in report.user_properties if name == "measured" and report.when == "call"]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A temporary folder with a short path: the path of a UNIX socket must fit in 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="moln-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Makes free TCP ports on loopback."""
    return ports.free_port


@pytest.fixture
def running(folder: Path) -> Iterator[processes.Processes]:
    """Starts processes; all of them, and their children, have ended when the test has."""
    group = processes.Processes(folder / "log")
    yield group
    group.close()
