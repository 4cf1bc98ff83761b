"""Which URLs images may be fetched from. Pure: looks at text and addresses, resolves nothing."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from services.common.domain.errors import invalid

MAX_BYTES = 4096


def check_url(field: str, url: str) -> None:
    """Raises INVALID for anything but http(s)://host/… without a password."""
    if not url:
        raise invalid(field, "is required: an http:// or https:// address")
    if len(url.encode()) > MAX_BYTES or not url.isprintable() or " " in url:
        raise invalid(field, "is not an address: it holds spaces or unprintable characters, or is too long")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as err:
        raise invalid(field, f"'{url}' is not an address: {err}") from err
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise invalid(field, f"'{url}' is not an http:// or https:// address")
    if parts.username or parts.password:
        raise invalid(field, "carries a password, which everyone who sees the image would see; leave it out")


def may_reach(address: str, *, is_admin: bool) -> bool:
    """Whether an image may be fetched from an address.

    The image service stands where users do not: what listens on its own machine and its links is for administrators.
    """
    if is_admin:
        return True
    found = ip_address(address.split("%")[0])
    if found.version == 6 and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return not (found.is_loopback or found.is_link_local or found.is_unspecified or found.is_multicast)
