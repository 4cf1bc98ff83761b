"""The README holds: its tour is taken, command by command, and its targets and links exist."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.pages import Shell, steps
from tests.support.processes import Processes
from tests.support.real import needs_root, programs, real_part

ROOT = Path(__file__).resolve().parents[3]
README = ROOT / "README.md"
PAGES = [
    README,
    *(page for folder in ("docs", "examples", "services") for page in sorted((ROOT / folder).rglob("*.md"))
      if "node_modules" not in page.parts),
]  # fmt: skip
HYPERVISOR_WORDS = frozenset({"qemu", "own", "its"})
"""Where KVM works and the machine's libvirt runs, the tour prints others."""
STACK_PROGRAMS = ("qemu-system-x86_64", "qemu-img", "libvirtd", "busybox", "xorriso", "ssh-keygen", "ssh")


@pytest.fixture
def home(folder: Path) -> Path:
    """A checkout as far as the tour needs one: a place to be in, with the virtual environment."""
    place = folder / "moln"
    place.mkdir()
    (place / ".venv").symlink_to(sys.prefix)
    return place


@pytest.fixture
def shell(home: Path, running: Processes) -> Iterator[Shell]:
    """A shell of the reader's; the cloud that it starts has ended with the test."""
    variables = running.environment({"XDG_STATE_HOME": str(home.parent / "state"), "NO_COLOR": "1"})
    variables["PATH"] = f"/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin:{os.environ.get('PATH', '')}"
    variables["PYTHONPATH"] = str(ROOT)
    with Shell(home, variables, differs=HYPERVISOR_WORDS) as opened:
        yield opened


@pytest.mark.timeout(600)
def test_the_tour_of_the_readme_goes_as_it_says(shell: Shell) -> None:
    real_part("QEMU", programs(*STACK_PROGRAMS))
    real_part("root", needs_root)
    for step in steps(README):
        shell.take(step)


def test_the_targets_that_the_readme_names_exist() -> None:
    named = set(re.findall(r"\bmake ([a-z-]+)", README.read_text())) - {"and"}
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test", "run"} <= named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
