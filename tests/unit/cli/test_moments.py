"""Times as people type them."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from services.cli.moments import duration, parse_moment, stamp

NOW = datetime.fromisoformat("2026-03-01T12:00:00").astimezone()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("+2h", NOW + timedelta(hours=2)),
        ("18:30", NOW.replace(hour=18, minute=30)),
        ("8:30", NOW.replace(hour=8, minute=30) + timedelta(days=1)),
        ("12:00", NOW + timedelta(days=1)),
        ("2026-12-24T18:30", datetime.fromisoformat("2026-12-24T18:30").astimezone()),
        ("2026-12-24T18:30:00+00:00", datetime.fromisoformat("2026-12-24T18:30:00+00:00")),
    ],
)
def test_a_moment_is_read(text: str, expected: datetime) -> None:
    assert parse_moment(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "soon", "24:00", "12:60", "+", "+-1h", "2026-13-01", "18.30"])
def test_what_is_no_moment_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_moment(text, NOW)


def test_moments_and_durations_are_written_as_the_contract_says() -> None:
    assert stamp(datetime.fromisoformat("1970-01-01T00:01:00+00:00")).seconds == 60
    assert (duration(1.5).seconds, duration(1.5).nanos) == (1, 500_000_000)
