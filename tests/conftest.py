"""Fixtures that every test may use: short temporary folders, free ports, processes that certainly end."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names the real parts that were not there: a green run without them proves less."""
    if not real.MISSING:
        return
    terminalreporter.section("real parts that were missing")
    for name, reason in sorted(real.MISSING.items()):
        terminalreporter.line(f"{name}: {reason}")


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
