"""`make setup`: system packages, virtual environment, Python packages, stubs. A second run takes a second.

Standard library only. It asks before it installs anything outside the checkout, and changes nothing there but packages.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from scripts.system_packages import SetupError, install, installed_lines, missing, parse_os_release, wanted

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / ".moln-stamp"
INSTALL_SECTIONS = ("build-system", "project")


def may_ask(environment: Mapping[str, str], *, is_terminal: bool) -> bool:
    """Questions are for a person at a terminal, never for a continuous-integration run."""
    return is_terminal and environment.get("CI", "").lower() not in {"1", "true", "yes"}


def python_stamp(pyproject: str, root: Path, version: str) -> str:
    """A hash of all that decides what the virtual environment holds; tool settings are not among it."""
    document = tomllib.loads(pyproject)
    relevant = {section: document.get(section) for section in INSTALL_SECTIONS}
    relevant["hatch"] = document.get("tool", {}).get("hatch")
    text = json.dumps([relevant, str(root), version], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def check_python(version: tuple[int, int], where: str) -> None:
    """Raises SetupError for an interpreter that is too old."""
    if version < (3, 11):
        found = f"{where} is Python {version[0]}.{version[1]}"
        raise SetupError(f"{found}: moln needs 3.11 or newer (make setup PYTHON=python3.12)")


def set_up_system(ask: bool) -> None:
    """Installs the distribution's packages that are missing."""
    try:
        distribution = parse_os_release(Path("/etc/os-release").read_text())
    except OSError:
        distribution = parse_os_release("")
    system_python = sys.base_prefix == "/usr"
    names = wanted(distribution, system_python=system_python)
    absent = missing(names, installed_lines(names))
    if absent:
        install(absent, may_ask=ask)


def set_up_python() -> None:
    """Makes .venv and installs the project into it, unless that is as it should be."""
    stamp = python_stamp((ROOT / "pyproject.toml").read_text(), ROOT, platform.python_version())
    if STAMP.exists() and STAMP.read_text() == stamp:
        return
    if not (VENV / "bin" / "python").exists() or not _same_python():
        if importlib.util.find_spec("ensurepip") is None:
            raise SetupError("this Python cannot make virtual environments: apt-get install python3-venv")
        _run([sys.executable, "-m", "venv", "--clear", str(VENV)], "the virtual environment could not be made")
    print("installing Python packages into .venv (a minute or two the first time)", flush=True)
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "--editable", ".[dev]"], "pip could not install the Python packages; see its message above")
    STAMP.write_text(stamp)


def _same_python() -> bool:
    """Whether .venv was made by an interpreter of this version."""
    config = VENV / "pyvenv.cfg"
    return config.exists() and f"version = {platform.python_version()}\n" in config.read_text()


def _run(command: list[str], failure: str) -> None:
    if subprocess.run(command, cwd=ROOT, check=False, stdin=subprocess.DEVNULL).returncode != 0:
        raise SetupError(failure)


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Two `make` runs in one checkout do not install over each other: the second waits, then finds it done."""
    with (ROOT / "pyproject.toml").open() as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def main() -> int:
    """Runs the whole set-up; prints one line and returns 1 where it cannot."""
    try:
        check_python(sys.version_info[:2], sys.executable)
        with one_at_a_time():
            set_up_system(may_ask(os.environ, is_terminal=sys.stdin.isatty()))
            set_up_python()
            _run([str(VENV / "bin" / "python"), "-m", "scripts.proto"], "the stubs could not be made; see above")
    except SetupError as err:
        print(f"make setup: {err}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nmake setup: interrupted; run it again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
