"""Times of day and times from now, as people type them. Pure but for the local time zone."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from services.cli.options import Parsed
from services.cli.sizes import parse_seconds

_CLOCK = re.compile(r"(\d{1,2}):(\d{2})")


def parse_moment(text: str, now: datetime | None = None) -> datetime:
    """`18:30` (the next time it is that late), `2026-12-24T18:30`, `+2h`. Raises ValueError, worded for the user."""
    here = (now or datetime.now(UTC)).astimezone()
    if text.startswith("+"):
        return here + timedelta(seconds=parse_seconds(text[1:]))
    if found := _CLOCK.fullmatch(text):
        hour, minute = (int(each) for each in found.groups())
        if hour > 23 or minute > 59:
            raise ValueError(f"'{text}' is no time of day")
        moment = here.replace(hour=hour, minute=minute, second=0, microsecond=0)
        return moment if moment > here else moment + timedelta(days=1)
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError as err:
        raise ValueError(f"'{text}' is no time: say 18:30, 2026-12-24T18:30 or +2h") from err


MOMENT = Parsed("time", parse_moment)


def stamp(moment: datetime) -> Timestamp:
    """As the contract writes it, in whole seconds."""
    return Timestamp(seconds=int(moment.timestamp()))


def duration(seconds: float) -> Duration:
    """As the contract writes it."""
    whole = int(seconds)
    return Duration(seconds=whole, nanos=int((seconds - whole) * 1e9))
