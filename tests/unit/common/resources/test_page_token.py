"""Page tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.resources import page_token


@given(st.text(max_size=40), st.integers(min_value=0, max_value=2**62))
def test_a_token_comes_back_as_it_went(last: str, revision: int) -> None:
    token = page_token.encode(last, "abc", revision)
    assert page_token.decode(token, "abc") == (last, revision)


def test_no_token_is_the_first_page() -> None:
    assert page_token.decode("", "abc") == ("", 0)


def test_a_token_of_another_filter_is_refused() -> None:
    with pytest.raises(MolnError, match="another filter") as caught:
        page_token.decode(page_token.encode("1", "abc", 7), "def")
    assert caught.value.reason is Reason.PAGE_TOKEN_INVALID


@pytest.mark.parametrize("token", ["x", "####", "å", "MTIz", page_token.encode("1", "abc", 7)[1:], "OTo3OmFiYzox"])
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(MolnError) as caught:
        page_token.decode(token, "abc")
    assert caught.value.reason is Reason.PAGE_TOKEN_INVALID


def test_page_sizes_have_a_default_and_a_bound() -> None:
    assert page_token.size(0) == 1_000
    assert page_token.size(5) == 5
    assert page_token.size(10**9) == page_token.MAX_SIZE
