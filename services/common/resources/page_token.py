"""Page tokens: where the next page of a list begins. Opaque to clients; pure."""

from __future__ import annotations

import base64
import binascii
from typing import NamedTuple

from services.common.domain.errors import MolnError, invalid
from services.common.domain.reasons import Reason

DEFAULT_SIZE = 1_000
MAX_SIZE = 20_000
_VERSION = "1"


class PageToken(NamedTuple):
    """Where a page begins: after `last` (an id as it stands in keys, or an address)."""

    last: str
    revision: int
    """Store revision of the first page."""


FIRST = PageToken("", 0)


def encode(last: str, digest: str, revision: int) -> str:
    """The token of the page after `last`. `digest` is that of the list's filter; `revision` the first page's."""
    plain = f"{_VERSION}:{revision}:{digest}:{last}".encode()
    return base64.urlsafe_b64encode(plain).decode().rstrip("=")


def decode(token: str, digest: str) -> PageToken:
    """The place a token stands for; `FIRST` where it is empty.

    Raises INVALID/PAGE_TOKEN_INVALID where it is no token, or one of a list with another filter.
    """
    if not token:
        return FIRST
    version, revision, first_digest, last = _fields(token)
    if version != _VERSION or not revision.isdigit():
        raise _invalid("is not one that this server gave; begin again without it")
    if first_digest != digest:
        raise _invalid("belongs to a list with another filter; keep the filter, or begin again without the token")
    return PageToken(last, int(revision))


def size(wanted: int) -> int:
    """Objects on a page: 0 is 1,000; never more than 20,000."""
    return min(wanted or DEFAULT_SIZE, MAX_SIZE)


def _fields(token: str) -> tuple[str, str, str, str]:
    try:
        plain = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True).decode()
        version, revision, digest, last = plain.split(":", 3)
    except (binascii.Error, ValueError) as err:
        raise _invalid("is not one that this server gave; begin again without it") from err
    return version, revision, digest, last


def _invalid(problem: str) -> MolnError:
    return invalid("page_token", problem, reason=Reason.PAGE_TOKEN_INVALID)
