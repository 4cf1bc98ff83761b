"""A place in a text, and how it is shown: the line with a caret under the place. Says what is wrong, not why."""

from __future__ import annotations

from dataclasses import dataclass

from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason

_BEFORE = 50
_AFTER = 26


class Misplaced(Exception):
    """Something is wrong at a place of the text, counted in characters from 0."""

    def __init__(self, at: int, problem: str) -> None:
        super().__init__(problem)
        self.at = at
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Place:
    """A place as people count: line and column from 1, and the line itself."""

    line: int
    column: int
    text: str


def place(text: str, at: int) -> Place:
    """The place of the character number `at`; the end of the text is one too."""
    start = text.rfind("\n", 0, at) + 1
    end = text.find("\n", at)
    return Place(text.count("\n", 0, at) + 1, at - start + 1, text[start : end if end >= 0 else len(text)])


def pointed(found: Place) -> str:
    """Two lines: the text around the place, and the caret under it."""
    first = max(0, found.column - 1 - _BEFORE)
    shown = "".join(char if char.isprintable() else " " for char in found.text[first : found.column + _AFTER])
    lead = "…" if first else ""
    return f"  {lead}{shown}\n  {' ' * (len(lead) + found.column - 1 - first)}^"


def refusal(field: str, text: str, wrong: Misplaced) -> MolnError:
    """EXPRESSION_INVALID: the problem, its line and column, the caret; `field` is the path within the request."""
    found = place(text, wrong.at)
    where = f"column {found.column}" if "\n" not in text else f"line {found.line}, column {found.column}"
    return MolnError(
        Reason.EXPRESSION_INVALID,
        f"{field}: {wrong.problem}, at {where}\n{pointed(found)}",
        fields=[(field, f"{wrong.problem}, at {where}")],
        metadata={"line": str(found.line), "column": str(found.column)},
    )
