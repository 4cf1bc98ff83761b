"""The first start: the cloud's record, the first administrator, and the file with his token. Idempotent."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp

from moln.common.v1 import common_pb2
from moln.iam.v1 import user_pb2
from moln.operations.v1 import records_pb2
from services.api.access.credentials import new_token
from services.api.index.cloud import CloudIndex
from services.api.usecases.resources import catch_up
from services.api.usecases.users import TOKEN_PREFIX, creation
from services.common.domain.keys import SCHEMA_VERSION
from services.common.obs.logs import get_logger
from services.common.store import Conflict, Store, Txn, key

ADMIN = "admin"
_log = get_logger("founding")


async def found_cloud(store: Store, cloud: CloudIndex, token_file: Path) -> None:
    """Makes what a new cloud needs. Writes the token to a file of mode 0600 before the user exists.

    A token file without its user (a crash between the two, or a purged store) is used again. Of several processes that
    start at once, one founds; the others leave no file.
    """
    now = Timestamp()
    now.GetCurrentTime()
    settings = key("cloud", "settings")
    record = records_pb2.CloudRecord(uid=str(uuid.uuid4()), create_time=now, schema_version=SCHEMA_VERSION)
    txn = Txn()
    txn.absent(settings)
    txn.put(settings, record)
    await _commit_once(store, txn)
    if cloud.catalog.by_user_name:
        return
    token = _token(token_file)
    user_id = (await store.ids.take("user", 1))[0]
    spec = user_pb2.UserSpec(
        uid=str(uuid.uuid4()),
        name=ADMIN,
        role=user_pb2.ROLE_ADMIN,
        create_time=now,
        cause=common_pb2.Cause(actor="<api>", reason="FOUND", time=now),
        schema_version=SCHEMA_VERSION,
    )
    if not await _commit_once(store, creation(user_id, spec, token)):
        token_file.unlink(missing_ok=True)
        return
    _log.info("cloud founded", administrator=ADMIN, token_file=str(token_file))


async def _commit_once(store: Store, txn: Txn) -> bool:
    """Whether it was this process that did it."""
    try:
        await store.commit(txn)
    except Conflict:
        await catch_up(store)
        return False
    return True


def _token(file: Path) -> str:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if file.exists() and (token := file.read_text().strip()):
        return token
    token = new_token(TOKEN_PREFIX)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(token + "\n")
        out.flush()
        os.fsync(out.fileno())
    return token
