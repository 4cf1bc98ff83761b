"""Writes deploy/config/<service>.toml: every setting of every service with its default, as the service prints it.

`--check` only says which files are not what they would be now.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "deploy" / "config"
SERVICES = ("api", "scheduler", "imagesvc", "netsvc", "hostagent")


def printed(service: str) -> str:
    """What the service prints of its settings."""
    command = [sys.executable, "-m", f"services.{service}", "--print-config"]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def stale(service: str) -> bool:
    """Whether the file of a service is not what it would be now."""
    file = FOLDER / f"{service}.toml"
    return not file.exists() or file.read_text() != printed(service)


def main(arguments: list[str]) -> int:
    """Writes the files, or with --check returns 1 and names those that differ."""
    if "--check" in arguments:
        found = [service for service in SERVICES if stale(service)]
        for service in found:
            print(f"deploy/config/{service}.toml is not what {service} prints: python -m scripts.config")
        return 1 if found else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for service in SERVICES:
        (FOLDER / f"{service}.toml").write_text(printed(service))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
