"""The agent's unit tests say nothing of what is logged: thousands of lines would hide a failure."""

from __future__ import annotations

import io

import pytest

from services.common.obs.logs import configure_logs


@pytest.fixture(autouse=True)
def quiet() -> None:
    """Logs go nowhere."""
    configure_logs("test", level="error", stream=io.StringIO())
