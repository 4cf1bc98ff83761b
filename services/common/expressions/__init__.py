"""Requirement and rank expressions: parsed and typed once, evaluated by others. Knows names of attributes, no hosts."""

from services.common.expressions.attributes import DYNAMIC, NUMBERS, TEXTS, attribute_name
from services.common.expressions.expression import Expression, Kind, parse
from services.common.expressions.tree import (
    ALWAYS,
    And,
    Arithmetic,
    Boolean,
    Comparison,
    Constant,
    Negative,
    Not,
    Number,
    Numeric,
    NumericAttribute,
    Or,
    TextComparison,
    walk,
)

__all__ = [
    "ALWAYS",
    "DYNAMIC",
    "NUMBERS",
    "TEXTS",
    "And",
    "Arithmetic",
    "Boolean",
    "Comparison",
    "Constant",
    "Expression",
    "Kind",
    "Negative",
    "Not",
    "Number",
    "Numeric",
    "NumericAttribute",
    "Or",
    "TextComparison",
    "attribute_name",
    "parse",
    "walk",
]
