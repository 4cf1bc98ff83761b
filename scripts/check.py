"""`make check`: everything that CI looks at before the tests, each step named, all failures shown.

`--fix` only formats the protos (ruff formats Python by itself, see `make fmt`).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scripts import proto

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
IMAGE = proto.TARGET / "moln.binpb"


@dataclass(frozen=True)
class Step:
    """One check: `run` prints what is wrong and returns whether all is well."""

    name: str
    run: Callable[[], bool]


def tool(name: str, *arguments: str) -> bool:
    """Runs a program of the virtual environment; quiet where it succeeds."""
    done = subprocess.run(
        [str(BIN / name), *arguments], cwd=ROOT, check=False, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    if done.returncode != 0:
        print(done.stdout, end="", flush=True)
    return done.returncode == 0


def git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Runs git in the checkout."""
    return subprocess.run(["git", *arguments], cwd=ROOT, check=False, capture_output=True)


def mypy() -> bool:
    """Everything that is ours."""
    return tool("mypy", "services", "tests", "scripts", "bench", "examples/python")


def breaking_base() -> str | None:
    """The commit that the contract is compared with: MOLN_BREAKING_BASE, else the published main, else main."""
    chosen = os.environ.get("MOLN_BREAKING_BASE")
    for name in [chosen] if chosen else ["origin/main", "main"]:
        if git("cat-file", "-e", f"{name}:protos/moln").returncode == 0:
            return name
    return None


def breaking() -> bool:
    """Compares the contract with that of the base; a base without a contract has nothing to break."""
    base = breaking_base()
    if base is None:
        print("  no contract on main yet: nothing to break")
        return True
    with tempfile.TemporaryDirectory() as work:
        archive = git("archive", "--format=tar", base, "protos/moln")
        subprocess.run(["tar", "-x", "-C", work], input=archive.stdout, check=True)
        old = Path(work) / "old.binpb"
        if not proto.describe(Path(work) / "protos", old):
            print(f"  the contract on {base} does not compile")
            return False
        return tool("buf", "breaking", str(IMAGE), "--against", str(old), "--config", "buf.yaml")


def documents() -> bool:
    """Whether the generated documents are what their generator would write now."""
    if not (ROOT / "scripts" / "docs.py").exists():
        return True
    return tool("python", "-m", "scripts.docs", "--check") and tool("python", "-m", "scripts.dashboards", "--check")


STEPS = (
    Step("ruff check", lambda: tool("ruff", "check", "--quiet", ".")),
    Step("ruff format", lambda: tool("ruff", "format", "--check", "--quiet", ".")),
    Step("mypy --strict", mypy),
    Step("import contracts", lambda: tool("lint-imports")),
    Step("buf lint", lambda: tool("buf", "lint", str(IMAGE), "--config", "buf.yaml")),
    Step("buf format", lambda: tool("buf", "format", "-d", "--exit-code", "protos")),
    Step("buf breaking", breaking),
    Step("generated documents", documents),
)


def main(arguments: list[str]) -> int:
    """Runs every step even after one failed; returns 1 if any did."""
    if "--fix" in arguments:
        return 0 if tool("buf", "format", "-w", "protos") else 1
    failed = []
    for step in STEPS:
        print(f"check: {step.name}", flush=True)
        if not step.run():
            failed.append(step.name)
    if failed:
        print(f"make check: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
