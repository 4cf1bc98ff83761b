"""The grammar, and the one parser that is made from it. Turns text into typed values by way of a builder; no meaning.

As in OpenNebula `&` and `|` have the same rank and are taken from left to right: `a | b & c` is `(a | b) & c`.
"""

from __future__ import annotations

import functools

from lark import Lark, Transformer

GRAMMAR = r"""
?start: logic

?logic: opposite
      | logic _AND opposite   -> both
      | logic _OR opposite    -> either
?opposite: comparison
      | _NOT opposite         -> negation
?comparison: sum
      | sum COMPARISON sum    -> compared
      | sum _HAS sum          -> membership
?sum: product
      | sum SIGN product      -> arithmetic
?product: factor
      | product TIMES factor  -> arithmetic
?factor: atom
      | SIGN factor           -> signed
?atom: NUMBER                 -> number
      | TEXT                  -> text
      | NAME                  -> name
      | "(" logic ")"         -> group

COMPARISON: "==" | "!=" | ">=" | "<=" | "=" | ">" | "<"
_HAS: "@>"
_AND: "&&" | "&"
_OR: "||" | "|"
_NOT: "!"
SIGN: "+" | "-"
TIMES: "*" | "/"
NUMBER: /[0-9]+(\.[0-9]+)?/
TEXT: /"[^"]*"/
NAME: /[A-Za-z][A-Za-z0-9_]*/
%ignore /[ \t\r\n]+/
"""

TOKENS = {
    "NAME": "an attribute",
    "NUMBER": "a number",
    "TEXT": "a text in quotes",
    "COMPARISON": "a comparison",
    "_HAS": "@>",
    "SIGN": "+",
    "TIMES": "*",
    "_AND": "&",
    "_OR": "|",
    "RPAR": ")",
    "$END": "the end",
}
"""What the tokens are called when one is missing; those that are left out go without saying."""


@functools.cache
def parser(builder: type[Transformer[object, object]]) -> Lark:
    """The parser whose rules call the builder as they are recognised: no recursion, whatever the depth."""
    return Lark(GRAMMAR, parser="lalr", lexer="contextual", transformer=builder())
