"""What stacks choose for themselves on one machine, before anything shows that it is taken: ports, networks."""

from __future__ import annotations

import socket
from typing import Self


class Reservations:
    """What this process has chosen: no other one on this machine gets it. Given back with the process's end.

    A reservation is a socket bound to an abstract name: the kernel gives a name to one process at a time. Those
    of another `scope` are not seen.
    """

    def __init__(self, scope: str = "moln") -> None:
        self._scope = scope
        self._held: dict[str, socket.socket] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_ending: object) -> None:
        """Gives everything back."""
        for what in list(self._held):
            self.give_back(what)

    def take(self, what: str) -> bool:
        """Whether it is this process's now, such as "port 2632"; False where it, or another one, has it already."""
        held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            held.bind(f"\0{self._scope} {what}")
        except OSError:
            held.close()
            return False
        self._held[what] = held
        return True

    def give_back(self, what: str) -> None:
        """Others may have it."""
        self._held.pop(what).close()
