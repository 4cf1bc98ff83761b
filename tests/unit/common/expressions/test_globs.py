"""Patterns: they match what the C library says, in time that does not explode."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.expressions.globs import Glob, Member, escape
from tests.unit.scheduler.core.obvious import is_like

letters = st.text(alphabet="abcB-.]/x1 ", max_size=8)
pieces = st.sampled_from(
    ["*", "?", "a", "b", "B", "1", ".", "/", "[a-c]", "[!a-c]", "[^b]", "[]x]", "[b-]", "[[:digit:]]", "[[:upper:]1]",
     "\\*", "\\a", "[", "]", "-", "[a\\]]", "[c-a]"]
)  # fmt: skip


@given(st.lists(pieces, max_size=6).map("".join), letters)
@settings(max_examples=1000)
def test_a_pattern_matches_what_the_c_library_says(pattern: str, text: str) -> None:
    assert Glob(pattern)(text) is is_like(text, pattern)


@given(letters, letters)
def test_an_escaped_text_matches_itself_alone(text: str, other: str) -> None:
    assert Glob(escape(text))(text)
    assert Glob(escape(text))(other) is (text == other)


@pytest.mark.parametrize(
    ("pattern", "text", "is_met"),
    [
        ("node-*", "node-7", True),
        ("node-*", "Node-7", False),
        ("*", ".hidden/too", True),
        ("node-?", "node-17", False),
        ("h[0-9]", "h7", True),
        ("h[!0-9]", "h7", False),
        ("h\\*", "h*", True),
        ("h\\*", "h7", False),
        ("ends\\", "ends\\", False),
        ("two\nlines*", "two\nlines\n", True),
        ("größe-?", "größe-ä", True),
    ],
)
def test_examples(pattern: str, text: str, is_met: bool) -> None:
    assert Glob(pattern)(text) is is_met


def test_only_a_pattern_without_magic_is_one_text() -> None:
    assert Glob("a b.c").literal == "a b.c"
    assert Glob("a*").literal is None
    assert Glob("\\*").literal is None


def test_a_pattern_of_many_stars_takes_no_time_to_fail() -> None:
    assert not Glob("*a" * 200 + "b")("a" * 50_000)


def test_a_member_of_a_list_is_a_pattern_or_a_number() -> None:
    assert Member("gold")("silver, gold")
    assert Member("g*")("silver,gold")
    assert not Member("gold")("silver gold")
    assert Member(3.0)("1,3.0")
    assert not Member(3.0)("33,x")
