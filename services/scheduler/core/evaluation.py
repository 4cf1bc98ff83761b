"""Values of expressions over columns, all hosts at once, by the rules of `services.common.expressions.tree`."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import reduce
from typing import Protocol

import numpy as np
import numpy.typing as npt

from services.common.expressions import (
    And,
    Arithmetic,
    Boolean,
    Choice,
    Comparison,
    Constant,
    Glob,
    Member,
    Membership,
    Negative,
    Not,
    Number,
    Numeric,
    NumericAttribute,
    Or,
    TextComparison,
    VmThere,
)
from services.scheduler.core.amounts import Flags, Floats
from services.scheduler.core.vocabulary import MISSING, Test


class View(Protocol):
    """What an evaluator asks of hosts."""

    def numbers(self, name: str) -> Floats: ...

    def codes(self, name: str) -> npt.NDArray[np.int32]: ...

    def code(self, text: str) -> int: ...

    def passing(self, name: str, test: Test) -> Flags: ...

    def holding(self, vm_id: int) -> Flags: ...


_ARITHMETIC: dict[str, Callable[[Floats, Floats], Floats]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": np.divide,
}  # fmt: skip
_COMPARISON: dict[str, Callable[[Floats, Floats], Flags]] = {
    "=": np.equal, ">": np.greater, ">=": np.greater_equal, "<": np.less, "<=": np.less_equal,
}  # fmt: skip


def satisfied(condition: Boolean, view: View) -> Flags:
    """Which hosts meet the condition; may be a single value where it is the same for all."""
    with np.errstate(all="ignore"):
        return _condition(condition, view)


def scores(score: Numeric, view: View) -> Floats:
    """The ranks of the hosts; may be a single value. What is no number (0 / 0) is the lowest rank there is."""
    with np.errstate(all="ignore"):
        found = _number(score, view, missing=0.0)
        return np.where(np.isnan(found), -np.inf, found)


def _condition(node: Boolean, view: View) -> Flags:
    match node:
        case Comparison():
            return _compare(node, view)
        case TextComparison():
            return _compare_text(node, view)
        case Membership():
            return view.passing(node.name, Member(node.member))
        case VmThere():
            found = view.holding(node.vm_id)
            return found if node.sign == "=" else np.logical_not(found)
        case Not():
            return np.logical_not(_condition(node.operand, view))
        case And():
            return reduce(np.logical_and, (_condition(operand, view) for operand in node.operands))
        case Or():
            return reduce(np.logical_or, (_condition(operand, view) for operand in node.operands))
        case Constant():
            return np.array(node.value)


def _compare(node: Comparison, view: View) -> Flags:
    left, right = _number(node.left, view, np.nan), _number(node.right, view, np.nan)
    if node.sign != "!=":
        return _COMPARISON[node.sign](left, right)
    return np.not_equal(left, right) & ~np.isnan(left) & ~np.isnan(right)


def _compare_text(node: TextComparison, view: View) -> Flags:
    if not isinstance(node.text, str):
        raise TypeError(f"{node.name} is compared with what a VM says, and no VM was named")
    glob = Glob(node.text)
    codes = view.codes(node.name)
    is_there: Flags = codes != MISSING
    is_met: Flags = view.passing(node.name, glob) if glob.literal is None else codes == view.code(glob.literal)
    return np.logical_and(is_there, is_met if node.sign == "=" else ~is_met)


def _number(node: Numeric, view: View, missing: float) -> Floats:
    match node:
        case Number():
            return np.array(node.value)
        case NumericAttribute():
            found = view.numbers(node.name)
            return found if np.isnan(missing) else np.where(np.isnan(found), missing, found)
        case Choice():
            found = _number(node.otherwise, view, missing)
            values = view.numbers(node.name)
            for value, number in node.cases:
                found = np.where(values == value, _number(number, view, missing), found)
            return found
        case Negative():
            return np.negative(_number(node.operand, view, missing))
        case Arithmetic():
            return _ARITHMETIC[node.sign](_number(node.left, view, missing), _number(node.right, view, missing))
