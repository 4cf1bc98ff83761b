"""One-time tokens with which nodes join. Only the hash is stored."""

from __future__ import annotations

import time
from typing import NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from moln.compute.v1 import host_pb2
from services.api.access.credentials import new_token, token_hash
from services.common.domain.keys import SCHEMA_VERSION

LIFE_S = 24 * 3600


class JoinToken(NamedTuple):
    """A token, shown once, and what is stored of it."""

    token: str
    secret: host_pb2.HostSecret

    @property
    def expire_time(self) -> Timestamp:
        """The token is refused after this time."""
        return self.secret.join_token_expire_time


def new_join_token(host_uid: str, node_secret_sha256: bytes = b"") -> JoinToken:
    """A token for a host. A node's present secret stays good until the token is used."""
    token = new_token("molnjoin")
    secret = host_pb2.HostSecret(
        uid=host_uid,
        join_token_sha256=token_hash(token),
        join_token_expire_time=Timestamp(seconds=int(time.time()) + LIFE_S),
        secret_sha256=node_secret_sha256,
        schema_version=SCHEMA_VERSION,
    )
    return JoinToken(token, secret)
