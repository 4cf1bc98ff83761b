"""Which ports a stack takes: the default ones while they are free, those of its last run after that, else any."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from typing import Self

LOOPBACK = "127.0.0.1"
DEFAULTS = {
    "api": 2632, "nodes": 2634, "imagesvc": 2635, "netsvc": 2636, "scheduler": 2637,
    "api-metrics": 9632, "scheduler-metrics": 9633, "imagesvc-metrics": 9634, "netsvc-metrics": 9635,
    "node-metrics": 9640, "sim-metrics": 9641, "prometheus": 9690,
}  # fmt: skip


class Reservations:
    """The ports that one process has chosen: others on this machine choose other ones, also before anything listens.

    A reservation is a socket bound to an abstract name, which the kernel gives to one process at a time and takes back
    with its end.
    """

    def __init__(self) -> None:
        self._held: dict[int, socket.socket] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_ending: object) -> None:
        """Gives them all back."""
        self._release(list(self._held))

    def choose(self, former: Mapping[str, int] | None) -> dict[str, int]:
        """A port for every name. Those of the last run are kept one by one; the defaults are taken all or none."""
        if former is not None:
            wanted = {**dict.fromkeys(DEFAULTS, 0), **former}
            return {name: port if port and self._take(port) else self._take_any() for name, port in wanted.items()}
        taken = [port for port in DEFAULTS.values() if self._take(port)]
        if len(taken) == len(DEFAULTS):
            return dict(DEFAULTS)
        self._release(taken)
        return {name: self._take_any() for name in DEFAULTS}

    def _take(self, port: int) -> bool:
        """Whether the port is this process's now."""
        held = _reserve(port)
        if held is None:
            return False
        if not is_free(port):
            held.close()
            return False
        self._held[port] = held
        return True

    def _take_any(self) -> int:
        while not self._take(port := free_port()):
            pass
        return port

    def _release(self, ports: Iterable[int]) -> None:
        for port in ports:
            self._held.pop(port).close()


def _reserve(port: int) -> socket.socket | None:
    """None where somebody has it."""
    held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        held.bind(f"\0moln-port-{port}")
    except OSError:
        held.close()
        return None
    return held


def is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def address(port: int) -> str:
    """`127.0.0.1:<port>`."""
    return f"{LOOPBACK}:{port}"
