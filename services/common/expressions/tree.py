"""The typed tree of an expression. A tree that exists is well typed; how it is evaluated is the evaluator's affair.

Rules of evaluation, the same everywhere: a comparison in which an attribute is missing on a host, or is not a number
where one is needed, is false (also `!=`); in a rank a missing attribute counts as 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

ArithmeticSign = Literal["+", "-", "*", "/"]
ComparisonSign = Literal["=", "!=", ">", ">=", "<", "<="]
TextSign = Literal["=", "!="]


@dataclass(frozen=True, slots=True)
class Number:
    """A number that is written out."""

    value: float


@dataclass(frozen=True, slots=True)
class NumericAttribute:
    """An attribute of the host, read as a number."""

    name: str


@dataclass(frozen=True, slots=True)
class Negative:
    """The number with its sign changed."""

    operand: Numeric


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Two numbers make one."""

    sign: ArithmeticSign
    left: Numeric
    right: Numeric


@dataclass(frozen=True, slots=True)
class Choice:
    """A number for each value of an attribute, and one for all others. Not written, but made."""

    name: str
    cases: tuple[tuple[float, Numeric], ...]
    otherwise: Numeric


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two numbers are compared."""

    sign: ComparisonSign
    left: Numeric
    right: Numeric


@dataclass(frozen=True, slots=True)
class TextOfVm:
    """What a label of the VM says, as it stands."""

    name: str


@dataclass(frozen=True, slots=True)
class TextComparison:
    """An attribute, read as text, is as a pattern says (see `globs`), or is not."""

    sign: TextSign
    name: str
    text: str | TextOfVm


@dataclass(frozen=True, slots=True)
class Membership:
    """An attribute, read as a list with commas, has a member that is as a pattern says, or equal to a number."""

    name: str
    member: str | float


@dataclass(frozen=True, slots=True)
class VmThere:
    """A VM is placed on the host (`=`), or is not."""

    sign: TextSign
    vm_id: int


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    operand: Boolean


@dataclass(frozen=True, slots=True)
class And:
    """All of them."""

    operands: tuple[Boolean, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Any of them."""

    operands: tuple[Boolean, ...]


@dataclass(frozen=True, slots=True)
class Constant:
    """The same for every host."""

    value: bool


Numeric = Number | NumericAttribute | Negative | Arithmetic | Choice
Boolean = Comparison | TextComparison | Membership | VmThere | Not | And | Or | Constant
Node = Numeric | Boolean

ALWAYS = Constant(True)
"""What an empty requirement is."""


def children(node: Node) -> tuple[Node, ...]:
    """The nodes right under this one."""
    match node:
        case Arithmetic() | Comparison():
            return (node.left, node.right)
        case Choice():
            return (*(number for _, number in node.cases), node.otherwise)
        case Negative() | Not():
            return (node.operand,)
        case And() | Or():
            return node.operands
        case Number() | NumericAttribute() | TextComparison() | Membership() | VmThere() | Constant():
            return ()


def walk(node: Node) -> Iterator[Node]:
    """The node and all below it."""
    waiting: list[Node] = [node]
    while waiting:
        at = waiting.pop()
        yield at
        waiting.extend(children(at))
