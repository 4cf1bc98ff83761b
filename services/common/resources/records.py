"""Keys and records that stand beside resources: names, results of requests that may be repeated, causes of changes."""

from __future__ import annotations

import hashlib
import re

from google.protobuf.message import Message

from moln.common.v1.common_pb2 import Cause
from moln.operations.v1.records_pb2 import NameRecord, RequestRecord
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError, invalid
from services.common.domain.reasons import Reason
from services.common.resources.stored import stored
from services.common.store import Entry, Store, Txn, key

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")


def cause_of(caller: Caller, verb: str) -> Cause:
    """Who changes something now, and with which verb."""
    cause = Cause(actor=caller.name, request_id=caller.request_id, reason=verb)
    cause.time.GetCurrentTime()
    return cause


def check_etag(etag: str, entry: Entry, what: str) -> None:
    """Raises ABORTED/ETAG_MISMATCH where a stated etag is not the entry's revision."""
    if etag and etag != str(entry.mod_revision):
        raise MolnError(Reason.ETAG_MISMATCH, f"update {what}: it was changed since it was read; read it again")


def name_key(kind: str, owner_id: int, name: str) -> str:
    """The key that says whose a name is. Owner 0 is for kinds whose names are unique in the cloud."""
    return key("name", kind, f"{owner_id}/{name}")


def guest_key(uid: str) -> str:
    """The key that says which VM an imported guest has become."""
    return name_key("guest", 0, uid)


def claim_name(txn: Txn, kind: str, owner_id: int, name: str, object_id: int) -> None:
    """Adds the name to a transaction, which fails where the name is taken."""
    wanted = name_key(kind, owner_id, name)
    txn.absent(wanted).put(wanted, NameRecord(id=object_id))


class Repeatable:
    """A request that answers its first result when it comes again under the same id; without an id it is always new."""

    def __init__(self, store: Store, caller: Caller, kind: str, request_id: str, request: Message) -> None:
        """Raises INVALID where the id is none. `request` is the message that must be the same, id included."""
        if request_id and not _REQUEST_ID.fullmatch(request_id):
            raise invalid("request_id", "takes 1 to 64 letters, digits, '.', '_', ':' or '-'")
        self.key = key("request", caller.user_id, request_id) if request_id else ""
        self._store = store
        self._kind = kind
        self._request_id = request_id
        name = request.DESCRIPTOR.full_name.encode()
        self._digest = hashlib.sha256(name + b"\0" + request.SerializeToString(deterministic=True)).digest()

    async def first_result(self) -> int | None:
        """The id that the same request made before; None where it is the first.

        Raises INVALID/REQUEST_ID_REUSED where the id stood for another request.
        """
        record = stored(await self._store.read(self.key), RequestRecord) if self.key else None
        if record is None:
            return None
        if record.digest != self._digest or record.kind != self._kind:
            problem = f"'{self._request_id}' was used for another request; choose a new one"
            raise invalid("request_id", problem, reason=Reason.REQUEST_ID_REUSED)
        return int(record.id)

    async def note(self, txn: Txn, object_id: int) -> None:
        """Adds the result to the transaction that makes it, which fails where the same request made one."""
        if not self.key:
            return
        record = RequestRecord(kind=self._kind, id=object_id, digest=self._digest)
        txn.absent(self.key).put(self.key, record, lease=await self._store.request_lease())
