"""A folder of scripts that may be run: everything outside of it may not, and nothing in it that others could change."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from services.common.exec.trouble import NOT_STARTED, ScriptError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class ScriptFolder:
    """`None` for the folder: no script may be run. Looked at anew with every call."""

    def __init__(self, path: Path | None, setting: str) -> None:
        self._path, self._setting = path, setting

    def find(self, name: str) -> Path:
        """The path of a script by its name. Raises ScriptError NOT_STARTED with the remedy."""
        if self._path is None:
            raise _refused(f"no script may be run here: set {self._setting} to a folder of scripts")
        if not _NAME.fullmatch(name):
            raise _refused(f"'{name}' is no name of a script: letters, digits, dots, dashes and underscores")
        path = self._path / name
        _check(self._path, stat.S_IFDIR, "a folder")
        _check(path, stat.S_IFREG, "a plain file")
        if not os.access(path, os.X_OK):
            raise _refused(f"{name} in {self._path} is not executable: chmod +x {path}")
        return path


def _check(path: Path, kind: int, word: str) -> None:
    try:
        found = path.lstat()
    except OSError as err:
        raise _refused(f"{path} cannot be read: {err.strerror}") from err
    if stat.S_IFMT(found.st_mode) != kind:
        raise _refused(f"{path} is not {word} (a link is none either)")
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
        raise _refused(f"{path} could be changed by others: chown root {path}; chmod go-w {path}")


def _refused(problem: str) -> ScriptError:
    return ScriptError(NOT_STARTED, problem, is_retryable=False)
