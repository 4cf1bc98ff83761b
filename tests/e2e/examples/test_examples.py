"""The examples do what they say, against a real stack: clients from generated stubs, and grpcurl with no files."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.pages import Shell, steps
from tests.support.real import Probe, programs, real_part
from tests.support.stack import Stack

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "examples"
BIN = Path(sys.executable).parent
PATH = f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"
BUILD_SECONDS = 900


def built(folder: Path, *commands: str) -> Probe:
    """A probe: the example's packages come from its lock file, its stubs from the contract. Quick when repeated."""

    def probe() -> str | None:
        missing = programs(commands[0].split()[0])()
        if missing:
            return missing
        for command in commands:
            done = run(folder, command, {})
            if done.returncode != 0:
                return f"{command}: {done.stdout[-1000:]}{done.stderr[-1000:]}"
        return None

    return probe


def run(folder: Path, command: str, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs a command of an example's page in its folder."""
    return subprocess.run(
        command.split(), cwd=folder, env={**os.environ, "PATH": PATH, **variables}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False, timeout=BUILD_SECONDS,
    )  # fmt: skip


def settings(stack: Stack) -> dict[str, str]:
    return {"MOLN_ENDPOINT": stack.endpoint, "MOLN_TOKEN_FILE": str(stack.folder.token_file)}


def assert_runs(folder: Path, command: str, stack: Stack) -> None:
    """The client prints each host, its VM with an address, and the VM's end; of the VM nothing stays."""
    done = run(folder, command, settings(stack))
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"^host \d+ sim-\d+ (?:HOST_STATE_)?UP: 0 VMs", done.stdout, re.MULTILINE)) == 4, done.stdout
    assert re.search(r"^vm \d+ from-\w+ (?:VM_STATE_)?RUNNING on sim-\d, address \d+\.", done.stdout, re.MULTILINE)
    assert re.search(r"^vm \d+ is gone$", done.stdout, re.MULTILINE)
    assert stack.read("vm", "list") == []


def assert_explains(folder: Path, command: str, stack: Stack, wrong_token: Path) -> None:
    """A refusal is one line with the reason, and the exit code says so."""
    wrong_token.write_text("moln_nonsense\n")
    done = run(folder, command, {**settings(stack), "MOLN_TOKEN_FILE": str(wrong_token)})
    assert done.returncode == 1
    assert "the token is not one of this cloud" in done.stderr
    assert "(TOKEN_INVALID)" in done.stderr


@pytest.mark.timeout(BUILD_SECONDS * 3)
def test_a_client_in_go_is_generated_and_runs(stack: Stack, folder: Path) -> None:
    home = EXAMPLES / "go"
    real_part("go client", built(home, "go mod download", "buf generate", "go build ."))
    assert_runs(home, "go run .", stack)
    assert_explains(home, "go run .", stack, folder / "token")


@pytest.mark.timeout(BUILD_SECONDS)
def test_a_client_in_node_is_generated_and_runs(stack: Stack, folder: Path) -> None:
    home = EXAMPLES / "node"
    real_part("node client", built(home, *installing(home), "npm run generate"))
    assert_runs(home, "node client.js", stack)
    assert_explains(home, "node client.js", stack, folder / "token")


def installing(home: Path) -> list[str]:
    """What installs the packages, where those of the lock file are not there yet."""
    installed = home / "node_modules" / ".package-lock.json"
    is_current = installed.exists() and installed.stat().st_mtime >= (home / "package-lock.json").stat().st_mtime
    return [] if is_current else ["npm ci"]


def test_a_client_in_python_runs(stack: Stack, folder: Path) -> None:
    home = EXAMPLES / "python"
    command = f"{sys.executable} client.py"
    assert_runs(home, command, stack)
    assert_explains(home, command, stack, folder / "token")


@pytest.mark.parametrize("language", ["go", "node"])
def test_no_generated_file_is_committed(language: str) -> None:
    command = ["git", "ls-files", f"examples/{language}/gen", f"examples/{language}/node_modules"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout == ""


def test_grpcurl_needs_no_files(stack: Stack, folder: Path) -> None:
    real_part("grpcurl", lambda: None if shutil.which("grpcurl", path=PATH) else "not installed")
    (folder / ".moln").symlink_to(stack.path)
    variables = {**stack.environment, "PATH": PATH}
    with Shell(folder, variables, {"127.0.0.1:2632": stack.endpoint}) as shell:
        for step in steps(EXAMPLES / "grpcurl.md"):
            shell.take(step)
