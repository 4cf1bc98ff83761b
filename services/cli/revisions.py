"""The last revision of each cloud that this user has seen, so that one command sees what the one before it did.

A cache: whatever goes wrong with the file, the command goes on without.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path


class LastRevision:
    """The last revision seen of one cloud. Grows only."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stored = self.value = _read(path)

    def saw(self, revision: int) -> None:
        """Notes a revision that an answer reflected."""
        self.value = max(self.value, revision)

    def save(self) -> None:
        """Writes it down, where it has grown."""
        if self.value <= self._stored:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._path.write_text(str(self.value))
        except OSError:
            return
        self._stored = self.value


def last_revision(environment: Mapping[str, str], endpoint: str, token: str) -> LastRevision:
    """That of a cloud. A cloud that was founded anew at the same place has other tokens, and so starts from nothing."""
    digest = hashlib.sha256(f"{endpoint}\n{token}".encode()).hexdigest()[:24]
    return LastRevision(cache_folder(environment) / "revisions" / digest)


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Where the command keeps what it can do without: `$XDG_CACHE_HOME/moln`, by default `~/.cache/moln`."""
    base = environment.get("XDG_CACHE_HOME") or str(Path(environment.get("HOME", "/")) / ".cache")
    return Path(base) / "moln"


def _read(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0
