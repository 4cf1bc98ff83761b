"""Labels: free key/value pairs of users. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from services.common.domain.errors import invalid

MAX_LABELS = 64
MAX_VALUE_BYTES = 256
_KEY = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_./-]{0,61}[A-Za-z0-9])?")


def check_labels(field: str, labels: Mapping[str, str]) -> None:
    """Raises INVALID naming the label: at most 64; keys of 1 to 63 letters, digits, `_ . / -`; values ≤ 256 B."""
    if len(labels) > MAX_LABELS:
        raise invalid(field, f"takes at most {MAX_LABELS} labels")
    for key, value in labels.items():
        if not _KEY.fullmatch(key):
            raise invalid(field, f"'{key}' is no key: 1 to 63 letters, digits, '_', '.', '/' or '-'")
        if len(value.encode()) > MAX_VALUE_BYTES:
            raise invalid(f"{field}[{key}]", f"is longer than {MAX_VALUE_BYTES} bytes")
