"""A parsed expression, and the only way to get one. Bounded in size and depth; parsed once per text."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from enum import Enum
from typing import cast

from lark import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from services.common.expressions.attributes import CURRENT_VMS, DYNAMIC, is_of_vm
from services.common.expressions.binding import Texts, bound_condition, bound_score
from services.common.expressions.builder import Builder, Built, boolean, numeric
from services.common.expressions.grammar import TOKENS, parser
from services.common.expressions.places import Misplaced, refusal
from services.common.expressions.tree import (
    ALWAYS,
    Boolean,
    Choice,
    Membership,
    Node,
    Number,
    Numeric,
    NumericAttribute,
    TextComparison,
    TextOfVm,
    VmThere,
    walk,
)

MAX_CHARACTERS = 4096
_CACHED = 4096


class Kind(Enum):
    """What an expression is for, and so which type it has."""

    REQUIREMENT = "requirement"
    RANK = "rank"


@dataclass(frozen=True, slots=True)
class Expression:
    """A requirement has a `condition`, a rank a `score`. Two are equal when their kind and text are."""

    kind: Kind
    text: str
    condition: Boolean = field(default=ALWAYS, compare=False)
    score: Numeric = field(default=Number(0.0), compare=False)
    attributes: frozenset[str] = field(default=frozenset(), compare=False)

    @property
    def is_empty(self) -> bool:
        """Nothing was written: every host will do, none is better."""
        return not self.text

    @property
    def is_dynamic(self) -> bool:
        """Its value for a host changes with what is placed there."""
        return not DYNAMIC.isdisjoint(self.attributes)

    @property
    def of_vm(self) -> frozenset[str]:
        """The attributes of the VM that it names; `bound` puts in what they are."""
        return frozenset(filter(is_of_vm, self.attributes))

    @property
    def vm_ids(self) -> frozenset[int]:
        """Ids of the VMs whose hosts matter to it."""
        return frozenset(node.vm_id for node in walk(self.condition) if isinstance(node, VmThere))

    def bound(self, texts: Texts) -> Expression:
        """The same for one VM: what its attributes are stands in their place."""
        if not self.of_vm:
            return self
        if self.kind is Kind.RANK:
            score = bound_score(self.score, texts, missing=0.0)
            return Expression(self.kind, self.text, score=score, attributes=_attributes(score))
        condition = bound_condition(self.condition, texts)
        return Expression(self.kind, self.text, condition=condition, attributes=_attributes(condition))


def scored(text: str, score: Numeric) -> Expression:
    """A rank that nobody wrote; equal texts stand for equal ranks."""
    return Expression(Kind.RANK, text, score=score, attributes=_attributes(score))


def parse(text: str, kind: Kind, field: str = "") -> Expression:
    """The expression in `text`; empty is every host, or rank 0.

    Raises EXPRESSION_INVALID with line and column as metadata, and a caret in the message. `field` is the path of the
    text within the request, for example `template.requirement`.
    """
    if len(text) > MAX_CHARACTERS:
        too_long = Misplaced(MAX_CHARACTERS, f"an expression has at most {MAX_CHARACTERS} characters")
        raise refusal(field or kind.value, text, too_long)
    found = _parse(text.strip() and text, kind)
    if isinstance(found, Misplaced):
        raise refusal(field or kind.value, text, found)
    return found


@functools.lru_cache(maxsize=_CACHED)
def _parse(text: str, kind: Kind) -> Expression | Misplaced:
    if not text:
        return Expression(kind, text)
    try:
        built = _build(text)
        if kind is Kind.RANK:
            score = numeric(built)
            return Expression(kind, text, score=score, attributes=_attributes(score))
        condition = boolean(built)
        return Expression(kind, text, condition=condition, attributes=_attributes(condition))
    except Misplaced as wrong:
        return Misplaced(wrong.at, wrong.problem)


def _build(text: str) -> Built:
    try:
        built = parser(Builder).parse(text)
    except UnexpectedInput as err:
        raise _unexpected(text, err) from None
    if not isinstance(built, Built):
        raise TypeError(f"the parser made {type(built).__name__}")
    return built


def _unexpected(text: str, err: UnexpectedInput) -> Misplaced:
    if isinstance(err, UnexpectedCharacters):
        at = cast("int", err.pos_in_stream)  # lark declares it as None
        return Misplaced(at, _character(text[at]))
    if not isinstance(err, UnexpectedToken):
        return Misplaced(0, "the expression cannot be read")
    if err.token.type == "$END":
        return Misplaced(len(text.rstrip()), f"the expression ends too early: {_wanted(err.accepts)} should follow")
    found = str(err.token)[:40]
    return Misplaced(err.token.start_pos or 0, f"{found} is not expected here, but {_wanted(err.accepts)}")


def _character(char: str) -> str:
    if char == '"':
        return "the text that begins here has no closing quote"
    if char == "'":
        return 'text is written in double quotes ("…")'
    shown = char if char.isprintable() else f"\\x{ord(char):02x}"
    return f"{shown} has no meaning here"


def _wanted(accepts: set[str]) -> str:
    is_value = "NAME" in accepts
    names = [words for name, words in TOKENS.items() if name in accepts and not (is_value and name == "SIGN")]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _attributes(root: Node) -> frozenset[str]:
    return frozenset(name for node in walk(root) for name in _names(node))


def _names(node: Node) -> tuple[str, ...]:
    match node:
        case TextComparison(_, name, TextOfVm(label)):
            return (name, label)
        case NumericAttribute(name) | TextComparison(_, name) | Membership(name) | Choice(name):
            return (name,)
        case VmThere():
            return (CURRENT_VMS,)
        case _:
            return ()
