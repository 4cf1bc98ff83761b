"""Sizes and times as people write and read them. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", re.IGNORECASE)
_MIB = {"": 1.0, "K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2}
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?")
_SECONDS = {"ms": 0.001, "": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_mib(text: str) -> int:
    """`512`, `512M`, `4G`, `1.5G`, `1T`, `2048K` in MiB. Raises ValueError, worded for the user."""
    found = _SIZE.fullmatch(text)
    if not found:
        raise ValueError(f"'{text}' is no size: a number with K, M, G or T (alone it is MiB), for example 512M or 4G")
    number, unit = found.groups()
    mib = float(number) * _MIB[unit.upper()]
    if mib != int(mib):
        raise ValueError(f"'{text}' is not a whole number of MiB")
    return int(mib)


def mib(value: int) -> str:
    """A size in MiB for people: `512 MiB`, `4 GiB`."""
    return size(value * 2**20)


def size(value: float) -> str:
    """A size in bytes for people."""
    index = 0
    while value >= 1024 and index < len(_UNITS) - 1:
        value /= 1024
        index += 1
    number = f"{value:.1f}".rstrip("0").rstrip(".")
    return f"{number} {_UNITS[index]}"


def parse_seconds(text: str) -> float:
    """`90`, `90s`, `5m`, `1h`, `500ms` in seconds. Raises ValueError, worded for the user."""
    found = _SPAN.fullmatch(text.strip())
    if not found:
        raise ValueError(f"'{text}' is no time: a number with ms, s, m, h or d (alone it is seconds), for example 90s")
    return float(found[1]) * _SECONDS[found[2] or ""]


def cores(percent: int) -> str:
    """Percent of a core as cores: `1.5`."""
    return f"{percent / 100:g}"


def age(time: Timestamp, now: datetime | None = None) -> str:
    """How long ago: `12s`, `5m`, `3h`, `2d`; `-` for a time that was never set."""
    if not time.seconds:
        return "-"
    seconds = int(((now or datetime.now(UTC)) - time.ToDatetime(UTC)).total_seconds())
    for limit, divisor, unit in ((120, 1, "s"), (7200, 60, "m"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{max(seconds, 0) // divisor}{unit}"
    return f"{seconds // 86400}d"


def clock(time: Timestamp) -> str:
    """The time of day, with the date, in the zone of the reader; `-` for a time that was never set."""
    if not time.seconds:
        return "-"
    return time.ToDatetime(UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
