"""The version of moln, from its installed metadata."""

from __future__ import annotations

from functools import cache
from importlib import metadata


@cache
def version() -> str:
    """For example `0.1.0`."""
    return metadata.version("moln")
