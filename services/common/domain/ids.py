"""Ids and names: parsed once at the edge, typed from then on."""

from __future__ import annotations

import re
from typing import NewType

from services.common.domain.errors import invalid

VmId = NewType("VmId", int)
HostId = NewType("HostId", int)
ImageId = NewType("ImageId", int)
NetworkId = NewType("NetworkId", int)
UserId = NewType("UserId", int)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_MAX_ID = 2**32 - 1


def check_name(field: str, name: str) -> str:
    """Returns the name, or raises INVALID naming the field.

    A name has 1 to 63 letters, digits, `.`, `_` or `-`, starts with a letter or digit, and is not all digits (ids are).
    """
    if not name:
        raise invalid(field, "is required")
    if not _NAME.fullmatch(name):
        raise invalid(field, "takes 1 to 63 letters, digits, '.', '_' or '-', and starts with a letter or digit")
    if name.isdigit():
        raise invalid(field, "may not be all digits, since ids are; add a letter")
    return name


def check_id(field: str, value: int) -> int:
    """Returns the id, or raises INVALID when it is none (ids are 1 to 2^32 - 1)."""
    if not 0 < value <= _MAX_ID:
        raise invalid(field, "must be an id of 1 or more")
    return value


__all__ = ["HostId", "ImageId", "NetworkId", "UserId", "VmId", "check_id", "check_name"]
