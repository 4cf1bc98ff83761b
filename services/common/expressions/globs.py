"""Patterns for texts as the shell has them: `*`, `?`, `[a-z]`, `[!a-z]`, `[[:digit:]]`, and `\\` before what is meant
as it stands. Letters have case, `/` and a leading point are letters like any other: OpenNebula's `fnmatch(…, 0)`.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

_MAGIC = re.compile(r"[*?\[\\]")
_CLASSES = {
    "alpha": "a-zA-Z", "digit": "0-9", "alnum": "a-zA-Z0-9", "upper": "A-Z", "lower": "a-z", "space": r"\s",
    "blank": r" \t", "xdigit": "0-9A-Fa-f", "punct": re.escape("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"),
}  # fmt: skip
_CACHED = 4096
_NEVER = r"(?!)"


@dataclass(frozen=True, slots=True)
class Glob:
    """A pattern; equal patterns answer alike."""

    pattern: str

    @property
    def literal(self) -> str | None:
        """The one text that it matches; None where there may be several."""
        return None if _MAGIC.search(self.pattern) else self.pattern

    def __call__(self, text: str) -> bool:
        """Whether the whole text is as the pattern says."""
        return _compiled(self.pattern).match(text) is not None


@dataclass(frozen=True, slots=True)
class Member:
    """A list in one text, its members separated by commas, has this one: a pattern, or a number."""

    wanted: str | float

    def __call__(self, text: str) -> bool:
        """Whether any member is as wanted."""
        members = [member.strip() for member in text.split(",")]
        if isinstance(self.wanted, str):
            return any(map(Glob(self.wanted), members))
        return any(_number(member) == self.wanted for member in members)


def escape(text: str) -> str:
    """The pattern that matches this text alone."""
    return _MAGIC.sub(r"\\\g<0>", text)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


@functools.lru_cache(maxsize=_CACHED)
def _compiled(pattern: str) -> re.Pattern[str]:
    """What stands before a further `*` is taken where it is first found, for good: time grows with the text's length,
    whatever the pattern.
    """
    parts = _parts(pattern)
    if len(parts) == 1:
        return re.compile(f"(?s:{parts[0]})\\Z")
    middle = "".join(f"(?>.*?{part})" for part in parts[1:-1] if part)
    return re.compile(f"(?s:{parts[0]}{middle}.*{parts[-1]})\\Z")


def _parts(pattern: str) -> list[str]:
    """What stands between the `*`, as regular expressions."""
    parts, at = [""], 0
    while at < len(pattern):
        char, at = pattern[at], at + 1
        if char == "*":
            parts.append("")
            continue
        if char == "\\":
            if at == len(pattern):
                return [_NEVER]
            found, at = re.escape(pattern[at]), at + 1
        elif char == "?":
            found = "."
        elif char == "[":
            found, at = _bracket(pattern, at)
        else:
            found = re.escape(char)
        parts[-1] += found
    return parts


def _bracket(pattern: str, at: int) -> tuple[str, int]:
    """The set that begins at `at`, behind its bracket, and where it ends; one that is never closed is a bracket."""
    first = at
    is_negated = pattern.startswith(("!", "^"), at)
    at += is_negated
    items: list[str] = []
    while at < len(pattern):
        char = pattern[at]
        if char == "]" and items:
            return _one_of("".join(items), is_negated), at + 1
        if char == "[" and (named := re.match(r"\[:([a-z]+):\]", pattern[at:])):
            if named[1] not in _CLASSES:
                return _NEVER, len(pattern)
            items.append(_CLASSES[named[1]])
            at += named.end()
            continue
        low, at = _letter(pattern, at)
        if pattern[at : at + 1] == "-" and pattern[at + 1 : at + 2] not in ("]", ""):
            high, at = _letter(pattern, at + 1)
            items.append(f"{_set(low)}-{_set(high)}" if low <= high else "")
        else:
            items.append(_set(low))
    return r"\[", first


def _one_of(items: str, is_negated: bool) -> str:
    """A range that runs backwards has nothing in it."""
    if not items:
        return "." if is_negated else _NEVER
    return f"[{'^' if is_negated else ''}{items}]"


def _letter(pattern: str, at: int) -> tuple[str, int]:
    if pattern[at] == "\\" and at + 1 < len(pattern):
        at += 1
    return pattern[at], at + 1


def _set(char: str) -> str:
    return "\\" + char if char in r"\]^-[&~|" else char
