"""The secret that internal calls carry: a 0600 file that the services of one cloud share. It is never logged."""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path

from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.rpc.call import Call, Gate
from services.common.rpc.channel import Headers
from services.common.runtime.settings import SettingsError

HEADER = "moln-service-secret"
MIN_CHARACTERS = 32
OPEN_PREFIXES = ("/grpc.health.v1.Health/",)
"""What answers without the secret: whoever can connect may ask whether the service is alive."""


def make_service_secret(path: Path) -> None:
    """Writes a new secret to `path` with mode 0600, unless there is one already; processes may race for it."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(secrets.token_urlsafe(32) + "\n")
    try:
        os.link(fresh, path)
    except FileExistsError:
        return
    finally:
        fresh.unlink()


def read_service_secret(path: Path) -> str:
    """The secret; raises SettingsError where the file is missing, others may read it, or it is too short to be one."""
    try:
        mode = path.stat().st_mode
        text = path.read_text().strip()
    except OSError as err:
        raise SettingsError(f"service secret {path}: cannot be read: {err.strerror or err}") from err
    if mode & 0o077:
        raise SettingsError(f"service secret {path}: others can read it: chmod 600 {path}")
    if len(text) < MIN_CHARACTERS:
        problem = f"shorter than {MIN_CHARACTERS} characters; remove it to get another"
        raise SettingsError(f"service secret {path}: {problem}")
    return text


def secret_headers(secret: str) -> Headers:
    """For `connect`: sends the secret with every call."""
    sent = ((HEADER, secret),)
    return lambda: sent


def secret_gate(secret: str) -> Gate:
    """For RpcServer: lets only calls with the secret pass, and health checks."""
    expected = secret.encode()

    def gate(call: Call) -> None:
        if call.method.startswith(OPEN_PREFIXES):
            return
        if not hmac.compare_digest(call.header(HEADER).encode(), expected):
            raise MolnError(
                Reason.SERVICE_SECRET_INVALID,
                "this port is for moln's own services: the call does not carry their secret; use the API's port",
            )

    return gate
