"""Where development stacks write down that they exist, so that clients on the same machine find them.

A stack writes one record twice: into its state folder, and into the user's list of stacks. Only reads and writes
records; starts and stops nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

FILE_NAME = "stack.json"
DEFAULT_FOLDER = ".moln"


@dataclass(frozen=True)
class StackRecord:
    """A stack: what it is called, where its state is, how it is reached, and which process holds it."""

    name: str
    state_dir: str
    endpoint: str
    """`host:port` of the public API."""
    token_file: str
    """File with the administrator's token."""
    pid: int
    start_ticks: int
    """Start time of the process in clock ticks: with the pid it is unique while the machine is up."""
    start_time: str
    """When it was started, ISO 8601."""
    is_ready: bool = False
    """Everything has come up."""

    def is_running(self) -> bool:
        """Whether the process that holds the stack still exists."""
        return self.pid > 0 and process_start_ticks(self.pid) == self.start_ticks


def process_start_ticks(pid: int) -> int:
    """The start time of a process in clock ticks since boot, or 0 where there is none (zombies count as gone)."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return 0
    return 0 if words[0] in "ZX" else int(words[19])


def registry_folder(environment: Mapping[str, str]) -> Path:
    """The user's list of stacks: `$XDG_STATE_HOME/moln/stacks`, by default `~/.local/state/moln/stacks`."""
    base = environment.get("XDG_STATE_HOME") or str(Path(environment.get("HOME", "/")) / ".local" / "state")
    return Path(base) / "moln" / "stacks"


def save(record: StackRecord, environment: Mapping[str, str]) -> None:
    """Writes the record to both places, each in one step."""
    text = json.dumps(asdict(record), indent=2) + "\n"
    for path in (Path(record.state_dir) / FILE_NAME, _entry(Path(record.state_dir), environment)):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = path.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(path)


def forget(state_dir: Path, environment: Mapping[str, str]) -> None:
    """Takes the stack off the user's list; the record in its state folder goes with the folder."""
    _entry(state_dir, environment).unlink(missing_ok=True)


def in_folder(folder: Path) -> StackRecord | None:
    """The stack whose state is in `folder` or in `folder/.moln`."""
    for candidate in (folder, folder / DEFAULT_FOLDER):
        record = load(candidate / FILE_NAME)
        if record is not None:
            return record
    return None


def known(environment: Mapping[str, str]) -> list[StackRecord]:
    """The stacks on the user's list, by name, running or not; those whose folder is gone are left out."""
    folder = registry_folder(environment)
    paths = sorted(folder.glob("*.json")) if folder.is_dir() else []
    found = (load(path) for path in paths)
    there = [record for record in found if record is not None and Path(record.state_dir).is_dir()]
    return sorted(there, key=lambda record: (record.name, record.state_dir))


def _entry(state_dir: Path, environment: Mapping[str, str]) -> Path:
    digest = hashlib.sha256(str(state_dir.resolve()).encode()).hexdigest()[:16]
    return registry_folder(environment) / f"{digest}.json"


def load(path: Path) -> StackRecord | None:
    """The record in a file, or None where there is none that can be read."""
    try:
        document = json.loads(path.read_text())
        return StackRecord(**{field.name: document[field.name] for field in fields(StackRecord)})
    except (OSError, ValueError, KeyError, TypeError):
        return None
