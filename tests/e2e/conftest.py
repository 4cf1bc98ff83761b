"""A stack with simulated hosts, shared by the tests that leave it as they found it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.stack import Stack, a_stack


@pytest.fixture(scope="session")
def sim_stack() -> Iterator[Stack]:
    """Four simulated hosts, no real one."""
    with a_stack("--sim-hosts", "4", "--no-real-host") as stack:
        yield stack


@pytest.fixture
def stack(sim_stack: Stack) -> Iterator[Stack]:
    """The shared stack; VMs that a test leaves are ended after it."""
    yield sim_stack
    if sim_stack.read("vm", "list"):
        sim_stack.moln("vm", "terminate", "--filter", "name=*", "--hard", "--yes", "--wait")
