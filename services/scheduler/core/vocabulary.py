"""Texts as small integers, so that a column of texts is compared as fast as one of numbers."""

from __future__ import annotations

import math

import numpy as np

from services.scheduler.core.amounts import Floats

MISSING = 0
"""The code of an attribute that a host does not have."""


class Vocabulary:
    """Codes of texts, in the order of their first appearance, and what each is as a number (NaN where it is none)."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._values: list[float] = [math.nan]
        self._numbers: Floats = np.array(self._values)

    def __len__(self) -> int:
        return len(self._codes)

    def add(self, text: str) -> int:
        """The code of the text, which is new if it was not there."""
        code = self._codes.get(text)
        if code is None:
            code = self._codes[text] = len(self._values)
            self._values.append(_number(text))
        return code

    def find(self, text: str) -> int:
        """The code of the text; MISSING where no host has it."""
        return self._codes.get(text, MISSING)

    def numbers(self) -> Floats:
        """The numbers, by code."""
        if len(self._numbers) != len(self._values):
            self._numbers = np.array(self._values)
        return self._numbers


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan
