"""Texts as small integers, so that a column of texts is compared as fast as one of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from services.scheduler.core.amounts import Flags, Floats

MISSING = 0
"""The code of an attribute that a host does not have."""
_MOST_TESTS = 256
_UNTRIED, _NO, _YES = range(3)

Test = Callable[[str], bool]
"""A question about a text that has one answer for ever; equal ones are the same question."""


class Vocabulary:
    """Codes of texts, in the order of their first appearance, and what each is as a number (NaN where it is none)."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._values: list[float] = [math.nan]
        self._numbers: Floats = np.array(self._values)
        self._texts: list[str] = [""]
        self._answers: dict[Test, npt.NDArray[np.int8]] = {}

    def __len__(self) -> int:
        return len(self._codes)

    def add(self, text: str) -> int:
        """The code of the text, which is new if it was not there."""
        code = self._codes.get(text)
        if code is None:
            code = self._codes[text] = len(self._values)
            self._values.append(_number(text))
            self._texts.append(text)
        return code

    def find(self, text: str) -> int:
        """The code of the text; MISSING where no host has it."""
        return self._codes.get(text, MISSING)

    def passing(self, codes: npt.NDArray[np.int32], test: Test) -> Flags:
        """Which of the codes stand for texts that pass. Every text is tried once, however often it comes and is asked
        for.
        """
        answers = self._answers.get(test)
        if answers is None:
            if len(self._answers) >= _MOST_TESTS:
                self._answers.clear()
            answers = np.array([_NO], np.int8)
        if len(answers) < len(self._values):
            answers = np.concatenate([answers, np.full(len(self._values) - len(answers), _UNTRIED, np.int8)])
        self._answers[test] = answers
        found = answers[codes]
        if (found == _UNTRIED).any():
            untried = np.zeros(len(answers), bool)
            untried[codes[found == _UNTRIED]] = True
            for code in np.flatnonzero(untried).tolist():
                answers[code] = _YES if test(self._texts[code]) else _NO
            found = answers[codes]
        passes: Flags = found == _YES
        return passes

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
