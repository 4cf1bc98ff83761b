"""Filters of lists: `key=value` pairs, all of which must hold, with globs and alternatives.

    name=web* state=RUNNING,PENDING label.tier!=front

Pure: it parses and compares, and knows no resource. Each list says by a `Vocabulary` which keys it has.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from typing import Generic, TypeVar

from services.common.domain.errors import MolnError, invalid
from services.common.domain.reasons import Reason

T = TypeVar("T")
MAX_LENGTH = 1024
LABEL = "label."

_PAIR = re.compile(r"([A-Za-z][A-Za-z0-9_.-]*)(!=|=)(.*)", re.DOTALL)
_GLOB = re.compile(r"[*?\[]")

Values = str | int | Iterable[str]
Getter = Callable[[T], Values]


@dataclass(frozen=True)
class Vocabulary(Generic[T]):
    """What the objects of one list can be filtered by.

    `keys` gives the value (or values, of which one must match) of an object under each key. `words` are keys whose
    values come from a closed list, in upper case: case does not matter there, and a word not of the list is an error.
    `labels` gives the object's labels, for keys such as `label.tier`.
    """

    keys: Mapping[str, Getter[T]]
    words: Mapping[str, Collection[str]] = field(default_factory=dict)
    labels: Callable[[T], Mapping[str, str]] | None = None

    def known(self) -> str:
        """The keys, for messages."""
        names = sorted(self.keys)
        return ", ".join([*names, "label.NAME"] if self.labels else names)


@dataclass(frozen=True)
class Pair(Generic[T]):
    """One `key=value` of a filter."""

    key: str
    get: Getter[T]
    is_negated: bool
    exact: frozenset[str]
    globs: tuple[re.Pattern[str], ...]

    def holds(self, item: T) -> bool:
        """Whether the pair holds for an object."""
        return self._is_met(self.get(item)) is not self.is_negated

    def _is_met(self, found: Values) -> bool:
        if isinstance(found, str | int):
            return self._is_one(str(found))
        return any(self._is_one(value) for value in found)

    def _is_one(self, value: str) -> bool:
        return value in self.exact or any(glob.match(value) for glob in self.globs)


@dataclass(frozen=True)
class Filter(Generic[T]):
    """A parsed filter. Without pairs it lets everything through."""

    pairs: tuple[Pair[T], ...]
    digest: str
    """Short hash of the text, for page tokens: a page continues only the list it began."""

    def matches(self, item: T) -> bool:
        """Whether all pairs hold for the object."""
        return all(pair.holds(item) for pair in self.pairs)

    def only(self, key: str) -> frozenset[str] | None:
        """The values that `key` is bound to where it is bound without globs, for a look-up by index; else None."""
        for pair in self.pairs:
            if pair.key == key and not pair.is_negated and not pair.globs:
                return pair.exact
        return None


def parse(text: str, vocabulary: Vocabulary[T], *, field_name: str = "filter") -> Filter[T]:
    """The filter that `text` says. Raises INVALID/FILTER_INVALID naming the field, the place and the known keys."""
    if len(text) > MAX_LENGTH:
        raise _invalid(field_name, f"is longer than {MAX_LENGTH} characters")
    try:
        words = shlex.split(text)
    except ValueError as err:
        raise _invalid(field_name, "a quotation mark is not closed") from err
    pairs = tuple(_pair(word, vocabulary, field_name) for word in words)
    return Filter(pairs, hashlib.sha256(text.encode()).hexdigest()[:8])


def _pair(word: str, vocabulary: Vocabulary[T], field_name: str) -> Pair[T]:
    found = _PAIR.fullmatch(word)
    if not found:
        raise _invalid(field_name, f"'{word}' is not key=value (known keys: {vocabulary.known()})")
    key, sign, value = found.groups()
    values = _values(key, value, vocabulary, field_name)
    return Pair(
        key=key,
        get=_getter(key, vocabulary, field_name),
        is_negated=sign == "!=",
        exact=frozenset(value for value in values if not _GLOB.search(value)),
        globs=tuple(re.compile(translate(value)) for value in values if _GLOB.search(value)),
    )


def _getter(key: str, vocabulary: Vocabulary[T], field_name: str) -> Getter[T]:
    get = vocabulary.keys.get(key)
    if get is not None:
        return get
    labels = vocabulary.labels
    if labels is None or not key.startswith(LABEL) or key == LABEL:
        raise _invalid(field_name, f"unknown key '{key}' (known keys: {vocabulary.known()})")
    name = key.removeprefix(LABEL)

    def label(item: T) -> Iterable[str]:
        value = labels(item).get(name)
        return () if value is None else (value,)

    return label


def _values(key: str, value: str, vocabulary: Vocabulary[T], field_name: str) -> list[str]:
    values = value.split(",")
    allowed = vocabulary.words.get(key)
    if allowed is None:
        return values
    values = [value.upper() for value in values]
    for word in values:
        if not _GLOB.search(word) and word not in allowed:
            raise _invalid(field_name, f"'{word}' is no {key} (one of {', '.join(sorted(allowed))})")
    return values


def _invalid(field_name: str, problem: str) -> MolnError:
    return invalid(field_name, problem, reason=Reason.FILTER_INVALID)
