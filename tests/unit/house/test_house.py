"""The rules of the house that no linter knows: docstrings of modules, sizes, packages, READMEs, forbidden means."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
MAX_LINES = 500
SERVICES = ("api", "scheduler", "hostagent", "imagesvc", "netsvc", "cli", "devstack")
OURS = ("services", "tests", "scripts", "bench", "examples")


def python_files(*folders: str) -> list[Path]:
    """Ours: what git tracks or would track, so that neither caches nor stubs count."""
    command = [
        "git",
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "--",
        *(f"{name}/*.py" for name in folders),
    ]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [ROOT / name for name in listed if (ROOT / name).exists()]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


FILES = python_files(*OURS)
TREES = {path: ast.parse(path.read_text()) for path in FILES}


def test_every_module_opens_with_its_job() -> None:
    silent = [name_of(path) for path, tree in TREES.items() if path.stat().st_size and not ast.get_docstring(tree)]
    assert silent == []


def test_no_file_grew_beyond_measure() -> None:
    assert [name_of(path) for path in FILES if path.read_text().count("\n") > MAX_LINES] == []


def test_every_folder_of_services_is_a_package_that_says_its_job() -> None:
    folders = {path.parent for path in python_files("services")}
    assert sorted(name_of(folder) for folder in folders if not (folder / "__init__.py").exists()) == []


def test_no_shell_and_no_mock() -> None:
    """A shell would interpret what users wrote; a mock would agree with whatever the code does."""
    faults = []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "shell" and getattr(node.value, "value", False):
                faults.append(f"{name_of(path)}:{node.value.lineno}: shell")
            if (
                isinstance(node, ast.ImportFrom)
                and node.module == "unittest"
                and "mock" in {a.name for a in node.names}
            ):
                faults.append(f"{name_of(path)}:{node.lineno}: mock")
            if isinstance(node, (ast.Import, ast.ImportFrom)) and "unittest.mock" in ast.unparse(node):
                faults.append(f"{name_of(path)}:{node.lineno}: mock")
            if isinstance(node, ast.Attribute) and node.attr in {
                "create_subprocess_shell",
                "getoutput",
                "getstatusoutput",
            }:
                faults.append(f"{name_of(path)}:{node.lineno}: {node.attr}")
    assert faults == []


OUTSIDE_OF_GROUPS = {
    # Opened by one function and closed by another, which awaits all of them; each loop outlives its own failures.
    "services/common/store/store.py",
    # Awaited in the same function, also when that is cancelled: what must not be left half-way.
    "services/imagesvc/datastores/incoming.py",
}


def test_tasks_are_started_in_groups_only() -> None:
    """A task that nobody awaits loses its exceptions and outlives what started it."""
    faults = []
    for path in python_files("services"):
        if name_of(path) in OUTSIDE_OF_GROUPS:
            continue
        for node in ast.walk(TREES[path]):
            if isinstance(node, ast.Attribute) and node.attr in {"create_task", "ensure_future"}:
                owner = ast.unparse(node.value)
                if owner == "asyncio" or node.attr == "ensure_future" or owner.endswith("loop"):
                    faults.append(f"{name_of(path)}:{node.lineno}: {owner}.{node.attr}")
    assert faults == []


def test_nothing_is_left_to_be_done() -> None:
    words = tuple(word + ":" for word in ("TO" + "DO", "FIX" + "ME", "XX" + "X"))
    assert [name_of(path) for path in FILES if any(word in path.read_text() for word in words)] == []


def test_tests_do_not_sleep() -> None:
    """A sleep is too long where the test passes and too short where it does not; `eventually` waits for the thing."""
    faults = []
    for path in python_files("tests"):
        if path.parent.name == "support":
            continue
        for node in ast.walk(TREES[path]):
            if not isinstance(node, ast.Call) or ast.unparse(node.func) not in {"time.sleep", "asyncio.sleep"}:
                continue
            if ast.unparse(node.args[0]) != "0":
                faults.append(f"{name_of(path)}:{node.lineno}")
    assert faults == []


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_has_its_page(service: str) -> None:
    page = ROOT / "services" / service / "README.md"
    assert page.exists()
    assert page.read_text().count("\n") < 120
