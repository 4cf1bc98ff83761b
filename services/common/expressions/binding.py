"""What attributes of one VM are, put into an expression in their place: it then speaks of hosts alone. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

from services.common.expressions.attributes import is_of_vm
from services.common.expressions.globs import Glob, Member, escape
from services.common.expressions.tree import (
    And,
    Arithmetic,
    Boolean,
    Choice,
    Comparison,
    Constant,
    Membership,
    Negative,
    Not,
    Number,
    Numeric,
    NumericAttribute,
    Or,
    TextComparison,
    TextOfVm,
    VmThere,
)

Texts = Mapping[str, str]
"""Attributes of the VM, as texts; what is not there the VM does not have."""

_NEVER = Constant(False)


def bound_condition(node: Boolean, texts: Texts) -> Boolean:
    """The condition for a VM with these attributes."""
    match node:
        case Comparison():
            left, right = bound_score(node.left, texts, math.nan), bound_score(node.right, texts, math.nan)
            return Comparison(node.sign, left, right)
        case TextComparison():
            return _bound_text(node, texts)
        case Membership() if is_of_vm(node.name):
            return Constant(node.name in texts and Member(node.member)(texts[node.name]))
        case Not():
            return Not(bound_condition(node.operand, texts))
        case And():
            return And(tuple(bound_condition(operand, texts) for operand in node.operands))
        case Or():
            return Or(tuple(bound_condition(operand, texts) for operand in node.operands))
        case Membership() | VmThere() | Constant():
            return node


def bound_score(node: Numeric, texts: Texts, missing: float) -> Numeric:
    """The number for a VM with these attributes; what it does not have, or is no number, is `missing`."""
    match node:
        case NumericAttribute() if is_of_vm(node.name):
            return Number(_number(texts.get(node.name, ""), missing))
        case Negative():
            return Negative(bound_score(node.operand, texts, missing))
        case Arithmetic():
            left, right = bound_score(node.left, texts, missing), bound_score(node.right, texts, missing)
            return Arithmetic(node.sign, left, right)
        case Number() | NumericAttribute() | Choice():
            return node


def _bound_text(node: TextComparison, texts: Texts) -> Boolean:
    pattern = node.text
    if isinstance(pattern, TextOfVm):
        if pattern.name not in texts:
            return _NEVER
        pattern = escape(texts[pattern.name])
    if not is_of_vm(node.name):
        return TextComparison(node.sign, node.name, pattern)
    if node.name not in texts:
        return _NEVER
    return Constant(Glob(pattern)(texts[node.name]) is (node.sign == "="))


def _number(text: str, missing: float) -> float:
    try:
        value = float(text)
    except ValueError:
        return missing
    return value if math.isfinite(value) else missing
