"""/dev/watchdog, and the stand-in that simulated hosts have. Does what it is told; the rule is core/feeding.py.

The kernel's interface: opening starts the timer, each write feeds it, and a close stops it only after the magic letter
`V`, and not even then where the driver was loaded with `nowayout`. That a close without the letter does *not* stop it
is what everything rests on, so a driver that cannot promise it is refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import struct
from pathlib import Path
from typing import Protocol

_GET_SUPPORT = 0x80285700
_SET_TIMEOUT = 0xC0045706
_GET_TIMEOUT = 0x80045707
_MAGIC_CLOSE = 0x0100
_SUPPORT = struct.Struct("=II32s")
_FEED = b"1"
_MAGIC = b"V"


class WatchdogError(Exception):
    """The device cannot be used; the text says why and what to do."""


class Watchdog(Protocol):
    """What can be done with one."""

    def arm(self) -> None:
        """Starts it; from now on it must be fed. Raises WatchdogError, and then it is not armed."""
        ...

    def feed(self) -> None:
        """Puts its time off once more. Raises WatchdogError."""
        ...

    def release(self, *, stops: bool) -> None:
        """Closes it; `stops`: the machine is to live on unfed (where the driver allows it)."""
        ...


class KernelWatchdog:
    """A watchdog of the kernel. Implements Watchdog."""

    def __init__(self, path: Path, timeout_s: int) -> None:
        self._path, self._timeout_s = path, timeout_s
        self._file = -1

    def arm(self) -> None:
        self._file = _open(self._path)
        try:
            self._check()
        except (OSError, WatchdogError) as err:
            self.release(stops=True)
            raise WatchdogError(f"{self._path}: {err}") from err

    def _check(self) -> None:
        if not stat.S_ISCHR(os.fstat(self._file).st_mode):
            raise WatchdogError("it is no device; a real host needs a real watchdog (modprobe softdog, at least)")
        raw = bytearray(_SUPPORT.size)
        fcntl.ioctl(self._file, _GET_SUPPORT, raw)
        if not _SUPPORT.unpack(raw)[0] & _MAGIC_CLOSE:
            raise WatchdogError("its driver stops when its file is closed, so it would not survive a kill of the agent")
        timeout = bytearray(struct.pack("=i", self._timeout_s))
        fcntl.ioctl(self._file, _SET_TIMEOUT, timeout)
        fcntl.ioctl(self._file, _GET_TIMEOUT, timeout)
        (found,) = struct.unpack("=i", timeout)
        if found > self._timeout_s:
            raise WatchdogError(f"its shortest time is {found} s: set watchdog_timeout_s to that")

    def feed(self) -> None:
        _write(self._path, self._file, _FEED)

    def release(self, *, stops: bool) -> None:
        _close(self._file, stops=stops)
        self._file = -1


class StandInWatchdog:
    """A file or FIFO that gets the same bytes, for simulated hosts: whoever reads it plays the hardware."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1

    def arm(self) -> None:
        if self._path.exists() and stat.S_ISCHR(self._path.stat().st_mode):
            raise WatchdogError(
                f"{self._path}: a simulated host takes a file or FIFO: a device would reset this machine"
            )
        self._file = _open(self._path, os.O_CREAT | os.O_APPEND | os.O_NONBLOCK)
        self.feed()

    def feed(self) -> None:
        _write(self._path, self._file, _FEED)

    def release(self, *, stops: bool) -> None:
        _close(self._file, stops=stops)
        self._file = -1


def _open(path: Path, flags: int = 0) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CLOEXEC | flags, 0o600)
    except OSError as err:
        problem = f"{path} cannot be opened: {err.strerror}; is a watchdog driver loaded, is it in use?"
        raise WatchdogError(problem) from err


def _write(path: Path, file: int, data: bytes) -> None:
    try:
        os.write(file, data)
    except OSError as err:
        raise WatchdogError(f"{path} cannot be fed: {err.strerror}") from err


def _close(file: int, *, stops: bool) -> None:
    if file < 0:
        return
    with contextlib.suppress(OSError):
        if stops:
            os.write(file, _MAGIC)
        os.close(file)
