"""Tables: with colours on a terminal, plain columns otherwise. Knows no resource."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import click

from services.cli.session import is_terminal

if TYPE_CHECKING:
    from rich.table import Table

T = TypeVar("T")
GAP = "  "

_STYLES = {
    "green": {"RUNNING", "UP", "READY", "CONNECTED", "OK"},
    "red": {"FAILED", "ERROR", "SILENT", "FENCED", "UNKNOWN"},
    "yellow": {"PENDING", "STARTING", "POWERING_OFF", "TERMINATING", "IMPORTING", "DELETING", "DRAINING", "NEW"},
    "dim": {"POWERED_OFF", "HELD", "DISABLED", "DONE", "SUSPENDED", "STOPPED", "UNDEPLOYED", "OFFLINE"},
}
_STYLE_OF = {word: style for style, words in _STYLES.items() for word in words}


@dataclass(frozen=True)
class Column(Generic[T]):
    """One column: its title and the text of a row in it."""

    title: str
    value: Callable[[T], str]
    is_wide: bool = False
    """Shown by `-o wide` only."""
    is_number: bool = False
    """Aligned to the right."""
    is_state: bool = False
    """Coloured by the word."""


def visible(columns: Sequence[Column[T]], *, is_wide: bool) -> list[Column[T]]:
    """The columns of a table of this width."""
    return [column for column in columns if is_wide or not column.is_wide]


def print_table(columns: Sequence[Column[T]], rows: Iterable[T]) -> None:
    """Prints a table as who reads it needs it."""
    if not is_terminal():
        for line in plain_lines(columns, rows):
            click.echo(line)
        return
    from rich.console import Console

    Console(highlight=False).print(rich_table(columns, rows))


def plain_lines(columns: Sequence[Column[T]], rows: Iterable[T]) -> list[str]:
    """The table as lines of aligned text, the header first."""
    cells = [[column.title for column in columns]]
    cells += [[_one_line(column.value(row)) or "-" for column in columns] for row in rows]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    return [plain_line(columns, line, widths) for line in cells]


def plain_line(columns: Sequence[Column[T]], cells: Sequence[str], widths: Sequence[int]) -> str:
    """One row of aligned text."""
    parts = [
        cell.rjust(width) if column.is_number else cell.ljust(width)
        for column, cell, width in zip(columns, cells, widths, strict=True)
    ]
    return GAP.join(parts).rstrip()


def rich_table(columns: Sequence[Column[T]], rows: Iterable[T]) -> Table:
    """The table for a terminal."""
    from rich.markup import escape
    from rich.table import Table

    is_coloured = not os.environ.get("NO_COLOR")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold" if is_coloured else "none")
    for column in columns:
        table.add_column(column.title, justify="right" if column.is_number else "left", overflow="fold")
    for row in rows:
        cells = [(column, _one_line(column.value(row)) or "-") for column in columns]
        table.add_row(*(_styled(cell) if column.is_state and is_coloured else escape(cell) for column, cell in cells))
    return table


def _styled(word: str) -> str:
    style = _STYLE_OF.get(word)
    return f"[{style}]{word}[/]" if style else word


def _one_line(text: str) -> str:
    """What a guest or a user wrote, without what would move the cursor."""
    return "".join(character if character.isprintable() else " " for character in text)
