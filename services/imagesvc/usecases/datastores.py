"""Datastores: created, shown, deleted. Only administrators change them; the api has checked that."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from pathlib import PurePosixPath

from moln.image.v1.datastore_service_pb2 import (
    CreateDatastoreRequest,
    ListDatastoresRequest,
    ListDatastoresResponse,
)
from moln.image.v1.image_pb2 import Datastore, DatastoreSpec
from moln.operations.v1.records_pb2 import CloudRecord
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError, invalid
from services.common.domain.ids import check_name
from services.common.domain.keys import SCHEMA_VERSION
from services.common.domain.reasons import Reason
from services.common.filters import Vocabulary, parse
from services.common.resources.front import Front
from services.common.resources.pages import page_of
from services.common.resources.records import Repeatable, cause_of, claim_name, name_key
from services.common.resources.stored import stored
from services.common.store import Conflict, Leadership, Store, Txn, key
from services.imagesvc.catalog import Catalog, DatastoreParts

KIND = "datastore"
DIRECTORY = "directory"
NOBODY = 0
"""Owner in keys of names: those of datastores are unique in the cloud."""
Look = Callable[[int], Awaitable[None]]
_ALL: Vocabulary[Datastore] = Vocabulary(keys={})


class Datastores:
    """The use cases of datastores. `look` makes a datastore usable, or writes down why it is not."""

    def __init__(self, store: Store, catalog: Catalog, front: Front, look: Look) -> None:
        self._store = store
        self._catalog = catalog
        self._front = front
        self._look = look

    async def create(self, request: CreateDatastoreRequest, caller: Caller, leadership: Leadership) -> Datastore:
        """Creates a datastore and makes its folder. Raises INVALID naming the field, EXISTS/NAME_TAKEN."""
        check_name("name", request.name)
        path = _check_path(request)
        repeatable = Repeatable(self._store, caller, KIND, request.request_id, request)
        if (first := await repeatable.first_result()) is not None:
            return self.get(first)
        async with self._front.one_at_a_time():
            self._check_beside(request.name, path)
            datastore_id = (await self._store.ids.take(KIND, 1))[0]
            spec = DatastoreSpec(
                uid=str(uuid.uuid4()), name=request.name, kind=DIRECTORY, path=path, schema_version=SCHEMA_VERSION
            )
            spec.cause.CopyFrom(cause_of(caller, "CREATE"))
            spec.create_time.CopyFrom(spec.cause.time)
            txn = Txn(guard=leadership).put(key(KIND, datastore_id, "spec"), spec)
            claim_name(txn, KIND, NOBODY, spec.name, datastore_id)
            await repeatable.note(txn, datastore_id)
            await self._commit(txn, f"create datastore {spec.name}")
        await self._look(datastore_id)
        return self.get(datastore_id)

    def get(self, datastore_id: int) -> Datastore:
        """One datastore. Raises NOT_FOUND."""
        return _composed(self._found(datastore_id))

    def list(self, request: ListDatastoresRequest) -> ListDatastoresResponse:
        """A page of datastores by id."""

        def read(key_id: str) -> Datastore | None:
            parts = self._catalog.datastore(int(key_id))
            return _composed(parts) if parts else None

        page = page_of(self._store, KIND, request.page_size, request.page_token, parse("", _ALL), read)
        items = [datastore for key_id in page.ids if (datastore := read(key_id)) is not None]
        return ListDatastoresResponse(datastores=items, next_page_token=page.next_token, revision=page.revision)

    async def delete(self, datastore_id: int, leadership: Leadership) -> None:
        """Deletes a datastore; its folder stays, without its mark. Raises DATASTORE_IN_USE, DEFAULT_OBJECT."""
        async with self._front.one_at_a_time():
            parts = self._found(datastore_id)
            self._check_unused(parts)
            txn = Txn(guard=leadership).unchanged(parts.spec_entry.key, parts.spec_entry.mod_revision)
            settings = self._store.cache.get("cloud", "settings")
            txn.unchanged(key("cloud", "settings"), settings.mod_revision if settings else 0)
            txn.delete(parts.spec_entry.key).delete(key(KIND, datastore_id, "status"))
            txn.delete(name_key(KIND, NOBODY, parts.spec.name))
            await self._commit(txn, f"delete datastore {parts.spec.name}")
        self._catalog.directory(parts).disown()

    def _check_beside(self, name: str, path: str) -> None:
        for other in self._catalog.datastores():
            if other.spec.name == name:
                problem = f"there is a datastore {name} already; choose another name"
                raise invalid("name", problem, reason=Reason.NAME_TAKEN)
            if other.spec.path == path:
                raise invalid("path", f"datastore {other.spec.name} is there already; choose another folder")

    def _check_unused(self, parts: DatastoreParts) -> None:
        held = [image.spec.name for image in self._catalog.images() if image.spec.datastore_id == parts.datastore_id]
        if held:
            shown = ", ".join(held[:10]) + (f" and {len(held) - 10} more" if len(held) > 10 else "")
            problem = f"it holds {'image' if len(held) == 1 else 'images'} {shown}; delete them first"
            raise MolnError(Reason.DATASTORE_IN_USE, f"delete datastore {parts.spec.name}: {problem}")
        cloud = stored(self._store.cache.get("cloud", "settings"), CloudRecord)
        if cloud is not None and cloud.default_datastore_id == parts.datastore_id:
            problem = "it is the cloud's default datastore; name another one first"
            raise MolnError(Reason.DEFAULT_OBJECT, f"delete datastore {parts.spec.name}: {problem}")

    async def _commit(self, txn: Txn, what: str) -> None:
        try:
            await self._store.commit(txn)
        except Conflict as err:
            raise MolnError(Reason.CONFLICT, f"{what}: it was changed at the same time; ask again") from err

    def _found(self, datastore_id: int) -> DatastoreParts:
        parts = self._catalog.datastore(datastore_id)
        if parts is None:
            problem = f"there is no datastore {datastore_id}; see: moln datastore list"
            raise MolnError(Reason.DATASTORE_NOT_FOUND, problem)
        return parts


def _check_path(request: CreateDatastoreRequest) -> str:
    if request.kind not in ("", DIRECTORY):
        raise invalid("kind", f"'{request.kind}' is not supported yet; use {DIRECTORY}")
    path = PurePosixPath(request.path)
    if not path.is_absolute() or ".." in path.parts or "\0" in request.path or len(path.parts) < 2:
        raise invalid("path", f"'{request.path}' is not an absolute path of a folder")
    return str(path)


def _composed(parts: DatastoreParts) -> Datastore:
    return Datastore(id=parts.datastore_id, spec=parts.spec, status=parts.status)
