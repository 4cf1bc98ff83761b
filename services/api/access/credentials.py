"""Tokens and passwords: made, hashed, verified. Only the SHA-256 of a token and the argon2 of a password are stored."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import secrets
import time

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from moln.iam.v1 import user_pb2
from services.api.index.catalog import Catalog
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason

_REMEMBERED_S = 60.0
_MAX_REMEMBERED = 10_000
_AT_ONCE = 2
"""Passwords that are verified at the same time: guessing many takes no threads from others."""
_HASHER = PasswordHasher()


def new_token(prefix: str) -> str:
    """A new secret of 256 random bits; the prefix tells people (and scanners for leaked secrets) what it is."""
    return f"{prefix}_{secrets.token_urlsafe(32)}"


def token_hash(token: str) -> bytes:
    """What is stored of a token. Tokens are random and long, so a plain hash is as good as a slow one."""
    return hashlib.sha256(token.encode()).digest()


def password_hash(password: str) -> str:
    """What is stored of a password. Takes tens of milliseconds: call it in a thread."""
    return _HASHER.hash(password)


class Authenticator:
    """Turns the header `authorization` into a caller."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._passed: dict[bytes, tuple[float, int, int]] = {}
        self._verifying = asyncio.Semaphore(_AT_ONCE)

    def by_token(self, header: str) -> Caller | None:
        """The caller of `Bearer <token>`; None when the header is of another kind. Raises UNAUTHENTICATED."""
        kind, _, token = header.partition(" ")
        if not token or kind.lower() != "bearer":
            return None
        user_id = self._catalog.by_token.get(token_hash(token.strip()))
        if user_id is None:
            raise MolnError(
                Reason.TOKEN_INVALID, "the token is not one of this cloud; is it the right cloud's, and current?"
            )
        return self._caller(user_id)

    async def by_password(self, header: str) -> Caller:
        """The caller of `Basic <base64 of name:password>`. Raises UNAUTHENTICATED; says the same whatever is wrong."""
        kind, _, encoded = header.partition(" ")
        if kind.lower() != "basic" or not encoded:
            raise MolnError(
                Reason.TOKEN_MISSING,
                "the call carries no credentials; send the metadata 'authorization: Bearer <token>'",
            )
        name, password = _decode(encoded)
        user_id = self._catalog.by_user_name.get(name, 0)
        entry = self._catalog.get("user", user_id, "secret")
        stored = entry.value.password_argon2 if entry is not None else ""
        digest = hashlib.sha256(header.encode()).digest()
        revision = entry.mod_revision if entry is not None else 0
        if self._remembers(digest, user_id, revision):
            return self._caller(user_id)
        async with self._verifying:
            is_right = await asyncio.to_thread(_verify, stored, password)
        if not is_right:
            raise MolnError(Reason.PASSWORD_INVALID, "name or password is wrong")
        self._remember(digest, user_id, revision)
        return self._caller(user_id)

    def _remembers(self, digest: bytes, user_id: int, revision: int) -> bool:
        known = self._passed.get(digest)
        return known is not None and known[0] > time.monotonic() and known[1:] == (user_id, revision)

    def _remember(self, digest: bytes, user_id: int, revision: int) -> None:
        if len(self._passed) >= _MAX_REMEMBERED:
            self._passed.clear()
        self._passed[digest] = (time.monotonic() + _REMEMBERED_S, user_id, revision)

    def _caller(self, user_id: int) -> Caller:
        entry = self._catalog.get("user", user_id)
        if entry is None:
            raise MolnError(Reason.TOKEN_INVALID, "the user of this token has been deleted")
        spec: user_pb2.UserSpec = entry.value
        return Caller(user_id, spec.name, spec.role == user_pb2.ROLE_ADMIN, frozenset(spec.capabilities))


def _decode(encoded: str) -> tuple[str, str]:
    try:
        name, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, ValueError) as err:
        raise MolnError(
            Reason.PASSWORD_INVALID, "the header 'authorization: Basic' is not base64 of name:password"
        ) from err
    if not colon:
        raise MolnError(Reason.PASSWORD_INVALID, "the header 'authorization: Basic' is not base64 of name:password")
    return name, password


_NOBODY = _HASHER.hash("")


def _verify(stored: str, password: str) -> bool:
    """Takes as long for a name that does not exist as for one that does."""
    try:
        _HASHER.verify(stored or _NOBODY, password)
        return bool(stored)
    except (Argon2Error, InvalidHashError):
        return False
