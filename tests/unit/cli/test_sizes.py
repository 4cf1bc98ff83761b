"""Sizes and times as people write and read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from services.cli.sizes import age, mib, parse_mib, parse_seconds, size


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("512", 512),
        ("512M", 512),
        ("4G", 4096),
        ("1.5G", 1536),
        ("1T", 2**20),
        ("2048K", 2),
        ("8GiB", 8192),
        ("1gb", 1024),
    ],
)
def test_sizes_have_units_and_bare_numbers_are_mib(text: str, expected: int) -> None:
    assert parse_mib(text) == expected


@pytest.mark.parametrize("text", ["", "G", "4X", "-1", "1K", "1.3", "4 G B"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"no size|whole number"):
        parse_mib(text)


@pytest.mark.parametrize(("text", "expected"), [("90", 90), ("90s", 90), ("5m", 300), ("1h", 3600), ("500ms", 0.5)])
def test_spans_have_units_and_bare_numbers_are_seconds(text: str, expected: float) -> None:
    assert parse_seconds(text) == expected


def test_sizes_are_shown_in_the_largest_unit_that_fits() -> None:
    assert [mib(512), mib(1024), mib(1536), size(0), size(1000)] == ["512 MiB", "1 GiB", "1.5 GiB", "0 B", "1000 B"]


@pytest.mark.parametrize(
    ("ago", "expected"),
    [(timedelta(seconds=5), "5s"), (timedelta(minutes=5), "5m"), (timedelta(hours=5), "5h"), (timedelta(days=5), "5d")],
)
def test_ages_are_short(ago: timedelta, expected: str) -> None:
    now = datetime(2026, 11, 23, 12, tzinfo=UTC)
    time = Timestamp()
    time.FromDatetime(now - ago)
    assert age(time, now) == expected


def test_a_time_that_was_never_set_has_no_age() -> None:
    assert age(Timestamp()) == "-"
