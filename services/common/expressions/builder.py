"""From recognised rules to the typed tree. Every type error is found here, with its place; nothing is evaluated."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

from lark import Token, Transformer, v_args

from services.common.expressions.attributes import (
    ALIASES,
    CURRENT_VMS,
    NUMBERS,
    TEXTS,
    VM_LABEL_PREFIX,
    VM_NUMBERS,
)
from services.common.expressions.places import Misplaced
from services.common.expressions.tree import (
    And,
    Arithmetic,
    ArithmeticSign,
    Boolean,
    Comparison,
    ComparisonSign,
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
    TextSign,
    VmThere,
)

MAX_DEPTH = 100
_NUMBERS = NUMBERS.keys() | VM_NUMBERS.keys()
_EQUALS = ("=", "!=")


@dataclass(frozen=True, slots=True)
class Word:
    """A bare word: an attribute, or on the right of `=` and `!=` a text without quotes."""

    raw: str

    @property
    def name(self) -> str:
        name = self.raw.upper()
        return ALIASES.get(name, name)


@dataclass(frozen=True, slots=True)
class Quoted:
    """A text in quotes."""

    text: str


Meaning = Numeric | Boolean | Word | Quoted


@dataclass(frozen=True, slots=True)
class Built:
    """Something with a meaning, where it begins, how deep it is, and whether it stands in parentheses."""

    meaning: Meaning
    at: int
    depth: int = 1
    is_grouped: bool = False


@v_args(inline=True)
class Builder(Transformer[object, object]):
    """One method for each rule of the grammar."""

    def number(self, token: Token) -> Built:
        value = float(token)
        if not math.isfinite(value):
            raise Misplaced(_at(token), "the number is too large")
        return Built(Number(value), _at(token))

    def text(self, token: Token) -> Built:
        return Built(Quoted(token[1:-1]), _at(token))

    def name(self, token: Token) -> Built:
        return Built(Word(str(token)), _at(token))

    def group(self, inner: Built) -> Built:
        return Built(inner.meaning, inner.at, inner.depth, is_grouped=True)

    def signed(self, sign: Token, operand: Built) -> Built:
        value = numeric(operand)
        return _over(Negative(value) if sign == "-" else value, _at(sign), operand)

    def arithmetic(self, left: Built, sign: Token, right: Built) -> Built:
        meaning = Arithmetic(cast(ArithmeticSign, str(sign)), numeric(left), numeric(right))
        return _over(meaning, left.at, left, right)

    def compared(self, left: Built, sign: Token, right: Built) -> Built:
        return _over(_compare(left, sign, right), left.at, left, right)

    def membership(self, left: Built, right: Built) -> Built:
        return _over(_member(left, right), left.at, left, right)

    def negation(self, operand: Built) -> Built:
        return _over(Not(boolean(operand)), operand.at, operand)

    def both(self, left: Built, right: Built) -> Built:
        first, second = boolean(left), boolean(right)
        if isinstance(first, And) and not left.is_grouped:
            return Built(And((*first.operands, second)), left.at, max(left.depth, right.depth + 1))
        return _over(And((first, second)), left.at, left, right)

    def either(self, left: Built, right: Built) -> Built:
        first, second = boolean(left), boolean(right)
        if isinstance(first, Or) and not left.is_grouped:
            return Built(Or((*first.operands, second)), left.at, max(left.depth, right.depth + 1))
        return _over(Or((first, second)), left.at, left, right)


def numeric(built: Built) -> Numeric:
    """The meaning as a number; Misplaced where it is none."""
    match built.meaning:
        case Word() as word if word.name in TEXTS:
            raise Misplaced(built.at, f"a number is needed here, and {word.name} is text")
        case Word() as word if word.name == CURRENT_VMS:
            raise Misplaced(built.at, _ONE_ID)
        case Word() as word:
            return NumericAttribute(word.name)
        case Quoted():
            raise Misplaced(built.at, "a number is needed here, not a text")
        case Comparison() | TextComparison() | Membership() | VmThere() | Not() | And() | Or() | Constant():
            raise Misplaced(built.at, "a number is needed here, not a condition")
        case number:
            return number


def boolean(built: Built) -> Boolean:
    """The meaning as a condition; Misplaced where it is none."""
    match built.meaning:
        case (
            Comparison() | TextComparison() | Membership() | VmThere() | Not() | And() | Or() | Constant()
        ) as condition:
            return condition
        case Word() as word:
            problem = f"a condition is needed here: compare {word.name} with something, for example {_example(word)}"
            raise Misplaced(built.at, problem)
        case Quoted():
            raise Misplaced(built.at, "a condition is needed here, not a text")
        case _:
            raise Misplaced(built.at, "a condition is needed here, not a number")


def _compare(left: Built, sign: Token, right: Built) -> Boolean:
    wanted = cast(ComparisonSign, "=" if sign == "==" else str(sign))
    match left.meaning, _right(left, wanted, right):
        case Word() as word, other if word.name == CURRENT_VMS:
            if wanted not in _EQUALS:
                raise Misplaced(_at(sign), _ONE_ID)
            return VmThere(cast(TextSign, wanted), _vm_id(other, right.at))
        case Word() as word, Quoted() as quoted:
            return _with_text(word, wanted, quoted, sign, right.at)
        case Quoted() as quoted, Word() as word if wanted in _EQUALS:
            return _with_text(word, wanted, quoted, sign, left.at)
        case Word() as word, TextOfVm() as text if wanted in _EQUALS:
            return TextComparison(cast(TextSign, wanted), word.name, text)
        case _:
            return Comparison(wanted, numeric(left), numeric(right))


def _right(left: Built, sign: ComparisonSign, right: Built) -> Meaning | TextOfVm:
    """As in OpenNebula `HYPERVISOR = kvm` needs no quotes; a word that names a number is that attribute."""
    match left.meaning, right.meaning:
        case Word() as one, Word() as word if sign in _EQUALS and not right.is_grouped and word.name not in _NUMBERS:
            if word.name.startswith(VM_LABEL_PREFIX) and one.name not in _NUMBERS:
                return TextOfVm(word.name)
            return Quoted(word.raw)
    return right.meaning


def _member(left: Built, right: Built) -> Boolean:
    if not isinstance(left.meaning, Word):
        raise Misplaced(left.at, "an attribute is needed on the left of @>")
    word = left.meaning
    if word.name == CURRENT_VMS:
        return VmThere("=", _vm_id(right.meaning, right.at))
    match right.meaning:
        case Quoted(text) | Word(text) if word.name in _NUMBERS:
            return Comparison("=", NumericAttribute(word.name), _number_in(word, Quoted(text), right.at))
        case Quoted(text) | Word(text):
            return Membership(word.name, text)
        case Number(value) if word.name not in _NUMBERS:
            return Membership(word.name, value)
        case Negative(Number(value)) if word.name not in _NUMBERS:
            return Membership(word.name, -value)
        case Number() as number:
            return Comparison("=", NumericAttribute(word.name), number)
        case _:
            pass
    raise Misplaced(right.at, "a text or a number is needed on the right of @>")


_ONE_ID = f"{CURRENT_VMS} is a list: compare it by =, != or @> with the id of one VM"


def _vm_id(meaning: Meaning | TextOfVm, at: int) -> int:
    match meaning:
        case Number(value) if value.is_integer():
            return int(value)
        case Quoted(text) if text.isascii() and text.isdecimal():
            return int(text)
    raise Misplaced(at, f"the id of a VM is needed here: {_ONE_ID}")


def _with_text(word: Word, sign: ComparisonSign, quoted: Quoted, token: Token, at: int) -> Boolean:
    if word.name in _NUMBERS:
        return Comparison(sign, NumericAttribute(word.name), _number_in(word, quoted, at))
    if sign not in _EQUALS:
        raise Misplaced(_at(token), f"text is compared with = or !=, not with {sign}")
    return TextComparison(cast(TextSign, sign), word.name, quoted.text)


def _number_in(word: Word, quoted: Quoted, at: int) -> Number:
    """Templates often quote numbers: `ID = "3"`."""
    try:
        value = float(quoted.text)
    except ValueError:
        raise Misplaced(at, f"{word.name} is a number, and this is none") from None
    if not math.isfinite(value):
        raise Misplaced(at, f"{word.name} is a number, and this is none")
    return Number(value)


def _over(meaning: Meaning, at: int, *operands: Built) -> Built:
    depth = 1 + max(operand.depth for operand in operands)
    if depth > MAX_DEPTH:
        raise Misplaced(at, f"more than {MAX_DEPTH} operations are nested here")
    return Built(meaning, at, depth)


def _example(word: Word) -> str:
    if word.name == CURRENT_VMS:
        return f"{word.name} = 12"
    if word.name in _NUMBERS:
        return f"{word.name} > 0"
    return f'{word.name} = "…"'


def _at(token: Token) -> int:
    return token.start_pos or 0
