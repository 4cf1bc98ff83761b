"""Messages put together from stored bytes: parts are framed with tag and length, never decoded. Pure."""

from __future__ import annotations

from collections.abc import Iterable

_WIRE_LENGTH = 2


def varint(value: int) -> bytes:
    """A non-negative integer as protobuf's base-128 varint."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def frame(field: int, payload: bytes) -> bytes:
    """One length-delimited field (message, string or bytes) with its tag."""
    return varint(field << 3 | _WIRE_LENGTH) + varint(len(payload)) + payload


def number(field: int, value: int) -> bytes:
    """One varint field with its tag; nothing for 0, as proto3 has it."""
    return varint(field << 3) + varint(value) if value else b""


def repeated(field: int, payloads: Iterable[bytes]) -> bytes:
    """A repeated message field from the bytes of its elements."""
    tag = varint(field << 3 | _WIRE_LENGTH)
    pieces: list[bytes] = []
    for payload in payloads:
        pieces += (tag, varint(len(payload)), payload)
    return b"".join(pieces)
