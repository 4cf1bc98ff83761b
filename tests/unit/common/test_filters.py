"""Filters of lists."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.filters import Filter, Vocabulary, parse


@dataclass
class Thing:
    name: str = "web1"
    state: str = "READY"
    size: int = 8
    tags: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)


THINGS = Vocabulary[Thing](
    keys={
        "name": lambda thing: thing.name,
        "state": lambda thing: thing.state,
        "size": lambda thing: thing.size,
        "tag": lambda thing: thing.tags,
    },
    words={"state": ("READY", "ERROR")},
    labels=lambda thing: thing.labels,
)


def read(text: str) -> Filter[Thing]:
    return parse(text, THINGS)


def refused(text: str) -> MolnError:
    with pytest.raises(MolnError) as caught:
        read(text)
    assert caught.value.reason is Reason.FILTER_INVALID
    assert caught.value.fields[0][0] == "filter"
    return caught.value


def test_an_empty_filter_lets_everything_through() -> None:
    assert read("  ").matches(Thing())


def test_all_pairs_must_hold() -> None:
    assert read("name=web1 state=READY").matches(Thing())
    assert not read("name=web1 state=ERROR").matches(Thing())


def test_a_glob_matches_the_whole_value() -> None:
    assert read("name=w*").matches(Thing())
    assert not read("name=e*").matches(Thing())
    assert read("name=web[0-9]").matches(Thing())


def test_alternatives_are_separated_by_commas() -> None:
    assert read("name=db,web?").matches(Thing())
    assert not read("name=db,mail").matches(Thing())


def test_a_negated_pair_holds_where_the_plain_one_does_not() -> None:
    assert not read("name!=web*").matches(Thing())
    assert read("label.tier!=front").matches(Thing())


def test_words_of_a_closed_list_may_be_written_in_lower_case() -> None:
    assert read("state=ready").matches(Thing())
    assert read("state=re*").matches(Thing())


def test_a_word_that_is_not_of_the_list_is_refused_with_the_list() -> None:
    assert "one of ERROR, READY" in refused("state=RAEDY").message


def test_numbers_and_several_values_are_compared_as_text() -> None:
    assert read("size=8").matches(Thing())
    assert read("tag=b").matches(Thing(tags=("a", "b")))
    assert not read("tag=b").matches(Thing())


def test_labels_are_keys_of_their_own() -> None:
    assert read("label.tier=front").matches(Thing(labels={"tier": "front"}))
    assert not read("label.tier=*").matches(Thing())


def test_quotation_marks_keep_spaces_together() -> None:
    assert read("name='a b'").matches(Thing(name="a b"))


def test_an_unknown_key_is_refused_with_the_known_ones() -> None:
    assert "known keys: name, size, state, tag, label.NAME" in refused("nmae=web").message


@pytest.mark.parametrize("text", ["web", "=web", "name='web", "x" * 2000, "label.=x"])
def test_what_is_no_filter_is_refused(text: str) -> None:
    refused(text)


def test_an_index_may_use_a_key_that_is_bound_to_values() -> None:
    assert read("name=a,b").only("name") == frozenset({"a", "b"})
    assert read("name=a*").only("name") is None
    assert read("name!=a").only("name") is None
    assert read("state=READY").only("name") is None


@given(st.text(max_size=60))
def test_any_text_parses_or_is_refused_with_its_reason(text: str) -> None:
    try:
        read(text).matches(Thing())
    except MolnError as err:
        assert err.reason is Reason.FILTER_INVALID
