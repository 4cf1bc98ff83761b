"""Why a VM has no host, in words: how many hosts each filter left, up to the one that left none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import NamedTuple

from services.common.domain.reasons import Reason
from services.common.domain.words import counted
from services.common.expressions import CURRENT_VMS, NUMBERS, TEXTS, is_of_vm
from services.scheduler.core.columns import HostColumns
from services.scheduler.core.filters import HOST_FILTERS, Left, count_left
from services.scheduler.core.room import Room
from services.scheduler.core.shapes import Shape

_ALWAYS_SAID = frozenset({"enabled", "wanted host", "requirement"})
_MOST_NAMES = 3
_LIKENESS = 0.8


class Why(NamedTuple):
    """A reason of the closed list, and the same in words; both empty where some host fits."""

    reason: str = ""
    message: str = ""


FITS = Why()


def why(columns: HostColumns, room: Room, shape: Shape) -> Why:
    """Why no host fits now; FITS where one does."""
    lefts, rows = count_left(columns, room, shape)
    return FITS if len(rows) else why_from(columns, shape, lefts)


def why_from(columns: HostColumns, shape: Shape, lefts: Sequence[Left]) -> Why:
    """The same from counts that end with no host."""
    if not len(columns):
        return Why(Reason.NO_HOSTS, "there is no host; add one with: moln host create NAME")
    said = f"{counted(len(columns), 'host')}: {', '.join(_said(lefts, len(columns)))}"
    if any(left.hosts == 0 for left in lefts if left.name in HOST_FILTERS):
        return Why(Reason.NO_HOSTS, said)
    return Why(Reason.NO_HOST_FITS, said + _unknown(columns, shape))


def unknown_attributes(columns: HostColumns, names: Iterable[str]) -> list[str]:
    """Those that no host has: mostly misspelt ones."""
    given = (name for name in names if name not in NUMBERS and name != CURRENT_VMS and not is_of_vm(name))
    return sorted(name for name in given if not columns.has_attribute(name))


def unknown_words(columns: HostColumns, names: Sequence[str]) -> list[str]:
    """What to say of attributes that no host has."""
    return [f"no host has the attribute {name}{_meant(columns, name)}" for name in names]


def _meant(columns: HostColumns, name: str) -> str:
    known = {*NUMBERS, *TEXTS, CURRENT_VMS, *filter(columns.has_attribute, columns.attributes)}
    close = get_close_matches(name, sorted(known - {name}), 1, _LIKENESS)
    return f"; did you mean {close[0]}?" if close else ""


def _said(lefts: Sequence[Left], hosts: int) -> list[str]:
    said = []
    for left in lefts:
        if left.hosts < hosts or left.name in _ALWAYS_SAID:
            said.append(f"{left.hosts} {left.words}")
        if left.hosts == 0:
            break
        hosts = left.hosts
    return said


def _unknown(columns: HostColumns, shape: Shape) -> str:
    unknown = unknown_attributes(columns, shape.requirement.attributes)[:_MOST_NAMES]
    return f"; no host has the attribute {' or '.join(unknown)}" if unknown else ""
