"""The `moln` command, run in this process against canned answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.cli.main import run
from services.cli.session import Session
from tests.support.api import CannedApi, serving


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    code: int
    out: str
    err: str


Moln = Callable[..., Outcome]


@pytest.fixture
def api() -> Iterator[CannedApi]:
    """A cloud that says what the test gives it."""
    with serving(CannedApi()) as served:
        yield served


@pytest.fixture
def moln(api: CannedApi, folder: Path, capfd: pytest.CaptureFixture[str]) -> Moln:
    """Runs `moln WORDS…` against that cloud."""
    environment = {
        "MOLN_ENDPOINT": f"127.0.0.1:{api.port}",
        "MOLN_TOKEN": "secret-of-anna",
        "XDG_CACHE_HOME": str(folder / "cache"),
        "XDG_STATE_HOME": str(folder / "state"),
    }

    def moln(*words: str) -> Outcome:
        code = run(words, Session(environment, folder))
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return moln
