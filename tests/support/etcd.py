"""A real etcd for tests, in a folder of its own, on a socket of its own; it can be stopped, killed, paused, restarted.

`@pytest.fixture` functions here are imported by the tests that want them: `from tests.support.etcd import etcd`.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from services.common.store import StoreSettings, server
from tests.support.eventually import eventually_sync
from tests.support.ports import free_port
from tests.support.processes import MARK
from tests.support.real import programs, real_part

DIES_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")
"""The kernel ends it when this process ends, however that happens. (A function before exec would make Python fork.)"""


class EtcdServer:
    """One etcd. `start()` returns when it answers; `close()` ends it and removes its data.

    With `on_port` it listens on a TCP port of 127.0.0.1 instead of a socket; `flags` come last and win. Without
    `waits`, start() returns at once.
    """

    def __init__(
        self,
        *,
        on_port: bool = False,
        quota_bytes: int = server.QUOTA_BYTES,
        max_request_bytes: int = server.MAX_REQUEST_BYTES,
        flags: Sequence[str] = (),
        waits: bool = True,
    ) -> None:
        memory = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(prefix="moln-etcd-", dir=memory if os.access(memory, os.W_OK) else None))
        self.port = free_port() if on_port else 0
        self._quota = quota_bytes
        self._max_request = max_request_bytes
        self._flags = list(flags)
        self._waits = waits
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """For `StoreSettings.endpoints`."""
        return f"127.0.0.1:{self.port}" if self.port else server.endpoint(self.folder)

    @property
    def settings(self) -> StoreSettings:
        """Settings that reach it; `dataclasses.replace` changes the rest."""
        return StoreSettings(endpoints=(self.endpoint,), quota_bytes=self._quota)

    @property
    def log(self) -> Path:
        """What it has written to its standard error."""
        return self.folder / "log"

    def start(self) -> None:
        """Starts it, with the data that are there, and waits until it answers."""
        server.clear_sockets(self.folder)
        mark = f"{os.getpid()}-{_start_time()}-etcd"
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [*DIES_WITH_PARENT, *self._command(), *self._flags], cwd=self.folder,
                env={**os.environ, MARK: mark}, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        if self._waits:
            eventually_sync(self._answers, what=f"etcd answers at {self.endpoint}")

    def kill(self) -> None:
        """kill -9."""
        self._signal(signal.SIGKILL)
        self._wait()

    def stop(self) -> None:
        """Asks it to end, and waits."""
        self._signal(signal.SIGTERM)
        self._wait()

    def pause(self) -> None:
        """Stops it in its tracks (SIGSTOP)."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets it go on."""
        self._signal(signal.SIGCONT)

    def forget(self) -> None:
        """Removes its data; it must not be running."""
        shutil.rmtree(self.folder / "data", ignore_errors=True)

    def close(self) -> None:
        """Ends it and removes its folder. Safe to call twice."""
        if self._process is not None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _command(self) -> list[str]:
        return server.command(self.folder, port=self.port, quota_bytes=self._quota, max_request_bytes=self._max_request)

    def _answers(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise RuntimeError(f"etcd ended at once: {self.log.read_text(errors='replace')[-2000:]}")
        family = socket.AF_INET if self.port else socket.AF_UNIX
        address = ("127.0.0.1", self.port) if self.port else str(server.socket_path(self.folder))
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.settimeout(5.0)
            if probe.connect_ex(address) != 0:
                return False
            probe.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            return b'"true"' in _all_of(probe)

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def _wait(self) -> None:
        if self._process is not None:
            self._process.wait()
            self._process = None


def _all_of(connection: socket.socket) -> bytes:
    found = b""
    try:
        while piece := connection.recv(4096):
            found += piece
    except OSError:
        return b""
    return found


def _start_time() -> str:
    return Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19]


@pytest.fixture
def etcd() -> Iterator[EtcdServer]:
    """An etcd for one test, on a socket."""
    real_part("etcd", programs("etcd"))
    started = EtcdServer()
    try:
        started.start()
        yield started
    finally:
        started.close()
