"""What the simulated hypervisors hold, in a file: one line for each change, so that it survives a kill -9 of the agent.

Tests count what runs, by uid, in these files and not in the store. A change is written before anybody hears of it.

Lines, fields apart by tabs, the last always a time in Unix seconds:
`R host vm uid epoch attempt generation time` runs · `S host vm uid end time` is off · `V host vm uid time` is off and
its memory is saved · `P host vm uid epoch time` a place is kept for it, as the target of a move · `E host vm uid time`
is erased · `O host vm uid kind operation time` an operation was carried out · `M host vm uid status time` what the
agent had it remember (base64) · `B host boot_id time` the host has booted, so nothing runs there.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from services.hostagent.drivers.ports import End

COMPACT_AT_BYTES = 32 * 1024 * 1024


@dataclass(slots=True)
class SimGuest:
    """One guest in a simulated hypervisor."""

    host_id: int
    vm_id: int
    uid: str
    epoch: int = 0
    attempt: int = 0
    generation: int = 0
    is_running: bool = False
    is_saved: bool = False
    end: End = End.NONE
    start_s: float = 0.0
    starts: int = 0
    remembered: bytes = b""
    """The status that the agent had it remember, serialised; empty where it says no more than that the guest runs."""
    operations: set[str] = field(default_factory=set)
    """Ids of the operations that were carried out."""


Guests = dict[tuple[int, int], SimGuest]


@dataclass(slots=True)
class State:
    """Everything that a journal says."""

    guests: Guests
    boot_ids: dict[int, str]


class Journal:
    """The open file. Lines gather until `flush` writes them with one call."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._lines: list[str] = []
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        os.ftruncate(self._file, _end_of_lines(self._file))

    def runs(self, guest: SimGuest) -> None:
        """The guest has been started."""
        self._lines.append(_runs(guest))

    def stops(self, guest: SimGuest, now_s: float) -> None:
        """The guest is off; `guest.end` says how."""
        self._lines.append(_stops(guest, now_s))

    def saves(self, guest: SimGuest, now_s: float) -> None:
        """The guest is off, and its memory is saved."""
        self._lines.append(f"V\t{guest.host_id}\t{guest.vm_id}\t{guest.uid}\t{now_s:.3f}\n")

    def places(self, guest: SimGuest, now_s: float) -> None:
        """A place is kept for the guest."""
        self._lines.append(_places(guest, now_s))

    def operates(self, guest: SimGuest, kind: str, operation_id: str, now_s: float) -> None:
        """An operation was carried out."""
        self._lines.append(f"O\t{guest.host_id}\t{guest.vm_id}\t{guest.uid}\t{kind}\t{operation_id}\t{now_s:.3f}\n")

    def remembers(self, guest: SimGuest, now_s: float) -> None:
        """The agent had something remembered."""
        self._lines.append(_remembers(guest, now_s))

    def erases(self, guest: SimGuest, now_s: float) -> None:
        """Nothing of the guest is left."""
        self._lines.append(f"E\t{guest.host_id}\t{guest.vm_id}\t{guest.uid}\t{now_s:.3f}\n")

    def boots(self, host_id: int, boot_id: str, now_s: float) -> None:
        """The host has booted."""
        self._lines.append(f"B\t{host_id}\t{boot_id}\t{now_s:.3f}\n")

    def flush(self) -> None:
        """Writes what has gathered; after it the changes survive this process."""
        if self._lines:
            data = "".join(self._lines).encode()
            self._lines.clear()
            while data:
                data = data[os.write(self._file, data) :]

    def compact(self, state: State, now_s: float) -> None:
        """Replaces a file that has grown long by what it amounts to."""
        if os.fstat(self._file).st_size < COMPACT_AT_BYTES:
            return
        fresh = self._path.with_suffix(".new")
        lines = [f"B\t{host_id}\t{boot_id}\t{now_s:.3f}\n" for host_id, boot_id in state.boot_ids.items()]
        for guest in state.guests.values():
            lines += _lines_of(guest, now_s)
        fresh.write_text("".join(lines))
        fresh.replace(self._path)
        os.close(self._file)
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND)

    def close(self) -> None:
        """Writes what has gathered and closes the file."""
        self.flush()
        os.close(self._file)


def read_state(path: Path) -> State:
    """What the simulated hypervisors hold. A last line cut short by a kill is passed over; no file: nothing."""
    state = State({}, {})
    for fields in read_history(path):
        _apply(state, fields)
    return state


def read_history(path: Path) -> Iterator[list[str]]:
    """The fields of every line, oldest first."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return
    for line in text.splitlines(keepends=True):
        if line.endswith("\n"):
            yield line[:-1].split("\t")


def _end_of_lines(file: int) -> int:
    """Where the last whole line ends: what a kill has cut short must not run into the next line."""
    size = os.fstat(file).st_size
    start = max(0, size - 4096)
    return start + os.pread(file, size - start, start).rfind(b"\n") + 1


def _apply(state: State, fields: list[str]) -> None:
    kind, host_id = fields[0], int(fields[1])
    if kind == "B":
        state.boot_ids[host_id] = fields[2]
        _stop_all(state, host_id)
        return
    key = host_id, int(fields[2])
    if kind == "E":
        state.guests.pop(key, None)
        return
    guest = state.guests.setdefault(key, SimGuest(host_id, key[1], fields[3]))
    _of_guest(guest, kind, fields)


def _of_guest(guest: SimGuest, kind: str, fields: list[str]) -> None:
    match kind:
        case "R":
            guest.epoch, guest.attempt, guest.generation = (int(each) for each in fields[4:7])
            guest.is_running, guest.is_saved = True, False
            guest.end, guest.start_s = End.NONE, float(fields[7])
            guest.starts += 1
        case "P":
            guest.epoch = int(fields[4])
        case "V":
            guest.is_running, guest.is_saved, guest.end = False, True, End.NONE
        case "O":
            guest.operations.add(fields[5])
        case "M":
            guest.remembered = base64.b64decode(fields[4])
        case _:
            guest.is_running, guest.is_saved, guest.end = False, False, End(fields[4])


def _stop_all(state: State, host_id: int) -> None:
    for guest in state.guests.values():
        if guest.host_id == host_id and guest.is_running:
            guest.is_running, guest.end = False, End.VANISHED


def _runs(guest: SimGuest) -> str:
    return (
        f"R\t{guest.host_id}\t{guest.vm_id}\t{guest.uid}\t{guest.epoch}\t{guest.attempt}\t{guest.generation}"
        f"\t{guest.start_s:.3f}\n"
    )


def _stops(guest: SimGuest, now_s: float) -> str:
    return f"S\t{guest.host_id}\t{guest.vm_id}\t{guest.uid}\t{guest.end.value}\t{now_s:.3f}\n"


def _places(guest: SimGuest, now_s: float) -> str:
    return f"P\t{guest.host_id}\t{guest.vm_id}\t{guest.uid}\t{guest.epoch}\t{now_s:.3f}\n"


def _remembers(guest: SimGuest, now_s: float) -> str:
    text = base64.b64encode(guest.remembered).decode()
    return f"M\t{guest.host_id}\t{guest.vm_id}\t{guest.uid}\t{text}\t{now_s:.3f}\n"


def _lines_of(guest: SimGuest, now_s: float) -> Iterator[str]:
    """A guest as it is now."""
    if guest.epoch and not guest.starts:
        yield _places(guest, now_s)
    if guest.is_running:
        yield _runs(guest)
    elif guest.is_saved:
        yield f"V\t{guest.host_id}\t{guest.vm_id}\t{guest.uid}\t{now_s:.3f}\n"
    else:
        yield _stops(guest, now_s)
    if guest.remembered:
        yield _remembers(guest, now_s)
