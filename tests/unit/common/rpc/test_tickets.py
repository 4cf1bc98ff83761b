"""Tickets: good for what they name, for whom they name, until they end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.rpc.tickets import sign_ticket, verify_ticket

SECRET = b"the services' secret"
TICKET = sign_ticket(SECRET, "image", "3", 9, 1_000)


def test_a_ticket_is_good_until_it_ends() -> None:
    assert verify_ticket(SECRET, TICKET, "image", "3", 1_000) == 9
    with pytest.raises(MolnError) as caught:
        verify_ticket(SECRET, TICKET, "image", "3", 1_000.5)
    assert caught.value.reason == Reason.TICKET_INVALID


@pytest.mark.parametrize(
    ("secret", "kind", "subject"), [(b"other", "image", "3"), (SECRET, "tunnel", "3"), (SECRET, "image", "4")]
)
def test_a_ticket_is_good_for_nothing_else(secret: bytes, kind: str, subject: str) -> None:
    with pytest.raises(MolnError):
        verify_ticket(secret, TICKET, kind, subject, 0)


@given(st.text(max_size=60))
def test_no_text_is_a_ticket_by_chance(text: str) -> None:
    with pytest.raises(MolnError) as caught:
        verify_ticket(SECRET, text, "image", "3", 0)
    assert caught.value.reason == Reason.TICKET_INVALID


@given(st.integers(0, len(TICKET) - 1), st.characters(codec="ascii"))
def test_a_changed_ticket_is_refused(place: int, letter: str) -> None:
    changed = TICKET[:place] + letter + TICKET[place + 1 :]
    if changed != TICKET:
        with pytest.raises(MolnError):
            verify_ticket(SECRET, changed, "image", "3", 0)
