"""What the simulated hypervisors ran, read from their own journal: the truth that the store is held against."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from services.hostagent.drivers.sim.journal import read_history, read_state


def running(journal: Path) -> Counter[str]:
    """How many guests of each uid run now, over all hosts."""
    return Counter(guest.uid for guest in read_state(journal).guests.values() if guest.is_running)


def present(journal: Path) -> set[str]:
    """The uids of which anything is on any host."""
    return {guest.uid for guest in read_state(journal).guests.values()}


def ever_twice(*journals: Path) -> set[str]:
    """The uids that at any moment ran on two hosts at once, over all journals: there must be none."""
    hosts: dict[str, set[str]] = {}
    twice: set[str] = set()
    lines = [fields for journal in journals for fields in read_history(journal)]
    if len(journals) > 1:
        lines.sort(key=lambda fields: float(fields[-1]))
    for fields in lines:
        match fields:
            case ["R", host, _, uid, *_]:
                hosts.setdefault(uid, set()).add(host)
                if len(hosts[uid]) > 1:
                    twice.add(uid)
            case ["S" | "E", host, _, uid, *_]:
                hosts.get(uid, set()).discard(host)
            case ["B", host, *_]:
                for where in hosts.values():
                    where.discard(host)
            case _:
                pass
    return twice
