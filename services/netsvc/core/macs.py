"""MAC addresses as text and as numbers. Pure."""

from __future__ import annotations

import re

_MAC = re.compile(r"[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}")
_MULTICAST = 1 << 40
_DEFAULT_PREFIX = 0x0200 << 32
LARGEST = 2**48 - 1


def parse(text: str) -> int | None:
    """The number of a unicast MAC address, or None where the text is none."""
    if not _MAC.fullmatch(text):
        return None
    number = int(text.replace(":", ""), 16)
    return None if number & _MULTICAST or not number else number


def to_text(number: int) -> str:
    """The usual form, in lower case."""
    digits = f"{number:012x}"
    return ":".join(digits[place : place + 2] for place in range(0, 12, 2))


def of_ipv4(address: int) -> int:
    """The MAC address of an interface whose range names none: `02:00` and the four bytes of the IPv4 address."""
    return _DEFAULT_PREFIX | address
