"""The one error of a simulation: what is wrong with what it was given, and where."""

from __future__ import annotations


class BadInput(Exception):
    """A line for the user: file, line and column where there are such, what is wrong, what was expected."""


def at(file: str, line: int, column: str, problem: str) -> BadInput:
    """The error for one cell: `jobs.csv, line 3, column cpu: 'x' is no number`."""
    return BadInput(f"{file}, line {line}, column {column}: {problem}")
