"""A network namespace of the test's own: bridges and rules that it makes vanish with it, whatever happens."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def private_network() -> Iterator[None]:
    """The calling thread, and all threads and processes that it starts, are in an empty network namespace."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        _check(_libc.unshare(_CLONE_NEWNET))
        yield
    finally:
        _check(_libc.setns(home, _CLONE_NEWNET))
        os.close(home)


def probe() -> str | None:
    """Why that does not work here, or None."""
    try:
        with private_network():
            return None
    except OSError as err:
        return f"network namespaces cannot be made: {err}"


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
