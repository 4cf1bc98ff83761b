"""What a service owes to whoever started it: to say when it is ready, and not to outlive it.

Variables, set by the starter: `MOLN_READY_FILE` (a path; appears when the service is ready, gone when it stops),
`MOLN_PARENT_PID` (the service stops when that process ends), and systemd's `NOTIFY_SOCKET`.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

READY_FILE = "MOLN_READY_FILE"
PARENT_PID = "MOLN_PARENT_PID"
NOTIFY_SOCKET = "NOTIFY_SOCKET"
_PR_SET_PDEATHSIG = 1


def announce_ready(environ: Mapping[str, str], addresses: Mapping[str, str]) -> None:
    """Tells the starter, by file and by systemd's protocol, that the service answers at `addresses`."""
    if READY_FILE in environ:
        target = Path(environ[READY_FILE])
        fresh = target.with_name(f"{target.name}.{os.getpid()}")
        fresh.write_text(json.dumps({"pid": os.getpid(), "addresses": dict(addresses)}))
        fresh.replace(target)
    _notify(environ, "READY=1")


def announce_stopping(environ: Mapping[str, str]) -> None:
    """Takes the announcement back."""
    if READY_FILE in environ:
        Path(environ[READY_FILE]).unlink(missing_ok=True)
    _notify(environ, "STOPPING=1")


def read_ready(file: Path) -> dict[str, str] | None:
    """For the starter: the addresses that the service announced, or None while it has not."""
    try:
        document = json.loads(file.read_text())
    except FileNotFoundError:
        return None
    return {str(name): str(address) for name, address in document["addresses"].items()}


def follow_parent(environ: Mapping[str, str], on_death: Callable[[], None]) -> None:
    """Calls `on_death` when the process named by MOLN_PARENT_PID ends (at once if it has); needs a running loop.

    A direct child is also sent SIGTERM by the kernel then, so that it goes even with its event loop stuck.
    """
    if PARENT_PID not in environ:
        return
    parent = int(environ[PARENT_PID])
    if os.getppid() == parent:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    try:
        handle = os.pidfd_open(parent)
    except ProcessLookupError:
        on_death()
        return
    loop = asyncio.get_running_loop()

    def died() -> None:
        loop.remove_reader(handle)
        os.close(handle)
        on_death()

    loop.add_reader(handle, died)


def _notify(environ: Mapping[str, str], text: str) -> None:
    path = environ.get(NOTIFY_SOCKET, "")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            channel.connect(address)
            channel.send(text.encode())
        except OSError:
            return  # a starter that does not listen has no use for the news
