"""The how-to pages hold: every command that they show is run against a stack, and prints the words that they show."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.support.pages import Shell, steps
from tests.support.stack import Stack

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted((ROOT / "docs" / "howto").glob("*.md"))
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
PASSING = frozenset({"PENDING", "STARTING", "STOPPING", "SUSPENDING", "POWERING_OFF", "UNDEPLOYING", "MIGRATING"})
"""Where a VM is on its way when it is asked: which of these is seen is chance."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_how_to_does_what_it_says(page: Path, stack: Stack, folder: Path) -> None:
    (folder / ".moln").symlink_to(stack.path)
    variables = {**stack.environment, "PATH": PATH, "MOLN_CLOUD": str(stack.path), "PYTHONPATH": str(ROOT)}
    with Shell(folder, variables, {"127.0.0.1:2632": stack.endpoint}, PASSING) as shell:
        for step in steps(page):
            shell.take(step)
