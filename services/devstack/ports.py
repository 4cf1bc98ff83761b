"""Which ports a stack takes: the default ones while they are free, those of its last run after that, else any."""

from __future__ import annotations

import socket
from collections.abc import Mapping

from services.devstack.reservations import Reservations

LOOPBACK = "127.0.0.1"
DEFAULTS = {
    "api": 2632, "nodes": 2634, "imagesvc": 2635, "netsvc": 2636, "scheduler": 2637,
    "api-metrics": 9632, "scheduler-metrics": 9633, "imagesvc-metrics": 9634, "netsvc-metrics": 9635,
    "node-metrics": 9640, "sim-metrics": 9641, "prometheus": 9690,
}  # fmt: skip


def choose(former: Mapping[str, int] | None, reserved: Reservations) -> dict[str, int]:
    """A port for every name. The ports of the last run are kept one by one; the defaults are taken all or none."""
    if former is not None:
        wanted = {**dict.fromkeys(DEFAULTS, 0), **former}
        return {name: port if port and _take(port, reserved) else _any(reserved) for name, port in wanted.items()}
    taken = [port for port in DEFAULTS.values() if _take(port, reserved)]
    if len(taken) == len(DEFAULTS):
        return dict(DEFAULTS)
    for port in taken:
        reserved.give_back(_name(port))
    return {name: _any(reserved) for name in DEFAULTS}


def _take(port: int, reserved: Reservations) -> bool:
    if not reserved.take(_name(port)):
        return False
    if not is_free(port):
        reserved.give_back(_name(port))
        return False
    return True


def _any(reserved: Reservations) -> int:
    while not _take(port := free_port(), reserved):
        pass
    return port


def _name(port: int) -> str:
    return f"port {port}"


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
