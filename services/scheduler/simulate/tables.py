"""CSV files as rows of named cells, each of which knows where it stands. Knows nothing of what they mean."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from services.scheduler.simulate.bad_input import BadInput, at


def read_text(path: Path) -> str:
    """The text of a file; a line for the user where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as err:
        raise BadInput(f"{path}: {err.strerror or err}") from err
    except UnicodeDecodeError as err:
        raise BadInput(f"{path}: byte {err.start} is no UTF-8; a text file is expected") from err


@dataclass(frozen=True, slots=True)
class Row:
    """One line. What is empty counts as not there."""

    file: str
    line: int
    cells: dict[str, str]

    def text(self, column: str) -> str:
        """The cell, without spaces around it; empty where the column is not there."""
        return self.cells.get(column, "")

    def decimal(self, column: str, least: int, most: int, default: int | None = None) -> Decimal:
        """The cell as an exact number between bounds. Without a default it must be there."""
        text = self.text(column)
        if not text:
            if default is None:
                self.refuse(column, "is empty; a number is expected")
            return Decimal(default)
        try:
            value = Decimal(text)
        except InvalidOperation:
            self.refuse(column, f"'{text}' is no number")
        if not value.is_finite() or not least <= value <= most:
            self.refuse(column, f"'{text}' is not between {least} and {most}")
        return value

    def whole(self, column: str, least: int, most: int, default: int | None = None) -> int:
        """Likewise, of whole numbers."""
        value = self.decimal(column, least, most, default)
        if value != int(value):
            self.refuse(column, f"'{self.text(column)}' is no whole number")
        return int(value)

    def refuse(self, column: str, problem: str) -> NoReturn:
        """Raises the error that names this cell."""
        raise at(self.file, self.line, column, problem)


def rows(path: Path, needed: Sequence[str], known: Sequence[str]) -> Iterator[Row]:
    """The rows of a CSV file with a header. Refuses files without a needed column or with one that is not known."""
    lines = csv.reader(read_text(path).splitlines(), strict=True, skipinitialspace=True)
    header: list[str] = []
    try:
        for cells in lines:
            if not any(cell.strip() for cell in cells) or cells[0].startswith("#"):
                continue
            if not header:
                header = _header(path, lines.line_num, cells, needed, known)
                continue
            yield _row(path, lines.line_num, header, cells)
    except csv.Error as err:
        raise BadInput(f"{path}, line {lines.line_num}: {err}") from err
    if not header:
        raise BadInput(f"{path}: is empty; its first line names the columns: {','.join(known)}")


def _header(path: Path, line: int, cells: Sequence[str], needed: Sequence[str], known: Sequence[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    for number, name in enumerate(names):
        if name not in known:
            close = get_close_matches(name, known, 1)
            meant = f"; did you mean {close[0]}?" if close else ""
            raise at(str(path), line, name or str(number + 1), f"is not known{meant} (known: {', '.join(known)})")
        if name in names[:number]:
            raise at(str(path), line, name, "is there twice")
    if missing := [name for name in needed if name not in names]:
        raise BadInput(f"{path}, line {line}: without the column {', '.join(missing)} (needed: {', '.join(needed)})")
    return names


def _row(path: Path, line: int, header: Sequence[str], cells: Sequence[str]) -> Row:
    if len(cells) != len(header):
        raise BadInput(f"{path}, line {line}: {len(cells)} cells, where the header has {len(header)} columns")
    return Row(str(path), line, {name: cell.strip() for name, cell in zip(header, cells, strict=True)})
