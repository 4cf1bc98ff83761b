"""Short-lived tickets for bulk data and tunnels: an HMAC over what they allow, signed with the service secret. Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac

from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason

_DIGEST = hashlib.sha256


def sign_ticket(secret: bytes, kind: str, subject: str, host_id: int, expire_s: int) -> str:
    """A ticket for `subject` (an id) of `kind` (`image`, `tunnel`), for one host, valid until Unix time `expire_s`."""
    body = f"{kind}:{subject}:{host_id}:{expire_s}"
    return f"{body}:{_signature(secret, body)}"


def verify_ticket(secret: bytes, ticket: str, kind: str, subject: str, now_s: float) -> int:
    """Returns the id of the host that the ticket is for, or raises UNAUTHENTICATED/TICKET_INVALID."""
    body, _, signature = ticket.rpartition(":")
    parts = body.split(":")
    is_genuine = hmac.compare_digest(signature.encode(), _signature(secret, body).encode())
    if not is_genuine or len(parts) != 4 or parts[:2] != [kind, subject] or int(parts[3]) < now_s:
        raise MolnError(Reason.TICKET_INVALID, f"the ticket for {kind} {subject} is wrong or has expired")
    return int(parts[2])


def _signature(secret: bytes, body: str) -> str:
    return base64.urlsafe_b64encode(hmac.new(secret, body.encode(), _DIGEST).digest()).decode().rstrip("=")
