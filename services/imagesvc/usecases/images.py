"""Images, as their owners see and change them. One transaction each, under the leadership it is given."""

from __future__ import annotations

import uuid
from typing import NamedTuple

from moln.image.v1.image_pb2 import Image, ImageDesired, ImageIntent, ImageSource, ImageSpec, ImageStatus
from moln.image.v1.image_service_pb2 import (
    CreateImageRequest,
    ListImagesRequest,
    ListImagesResponse,
    UpdateImageRequest,
)
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError, invalid
from services.common.domain.reasons import Reason
from services.common.filters import parse
from services.common.resources.front import Front
from services.common.resources.pages import page_of
from services.common.resources.records import Repeatable, cause_of, check_etag, claim_name
from services.common.resources.update_mask import apply_mask
from services.common.store import Conflict, Leadership, Store, Txn, key, prefix
from services.imagesvc.catalog import Catalog, DatastoreParts, ImageParts
from services.imagesvc.core import images, views
from services.imagesvc.datastores.directory import MIB
from services.imagesvc.usecases import new_parts

KIND = "image"
WAIT_SECONDS = 5.0


class Draft(NamedTuple):
    """An image that may be created: its spec, its datastore, and the request that may be repeated."""

    spec: ImageSpec
    datastore: DatastoreParts
    repeatable: Repeatable


class Images:
    """The use cases of images."""

    def __init__(self, store: Store, catalog: Catalog, front: Front) -> None:
        self._store = store
        self._catalog = catalog
        self._front = front

    async def create(self, request: CreateImageRequest, caller: Caller, leadership: Leadership) -> Image:
        """Creates an image whose bytes are fetched afterwards. Raises INVALID, EXISTS, DENIED, NOT_FOUND, EXHAUSTED."""
        draft = await self.draft(request, caller, is_upload=False)
        if isinstance(draft, Image):
            return draft
        if draft.spec.source == ImageSource.IMAGE_SOURCE_EMPTY and draft.spec.format == "raw":
            self._catalog.directory(draft.datastore).check_room(draft.spec.size_mib * MIB)
        return await self.insert(draft, new_parts.importing(draft.spec), caller, leadership)

    async def draft(self, request: CreateImageRequest, caller: Caller, *, is_upload: bool) -> Draft | Image:
        """What a request would create, checked; or what the same request created before."""
        images.check_request(request, caller, is_upload=is_upload)
        repeatable = Repeatable(self._store, caller, KIND, request.request_id, request)
        if (first := await repeatable.first_result()) is not None:
            return self.get(first, caller)
        if self._store.cache.get("name", KIND, f"{caller.user_id}/{request.name}") is not None:
            raise _name_taken(request.name, caller)
        datastore = self._datastore(request.datastore_id)
        spec = new_parts.spec_of(request, str(uuid.uuid4()), datastore.datastore_id, caller, is_upload=is_upload)
        spec.cause.CopyFrom(cause_of(caller, "CREATE"))
        spec.create_time.CopyFrom(spec.cause.time)
        return Draft(spec, datastore, repeatable)

    async def insert(self, draft: Draft, status: ImageStatus, caller: Caller, leadership: Leadership) -> Image:
        """Writes all of a new image in one transaction. Raises EXISTS/NAME_TAKEN, NOT_FOUND/DATASTORE_NOT_FOUND."""
        spec, datastore = draft.spec, draft.datastore
        image_id = (await self._store.ids.take(KIND, 1))[0]
        txn = Txn(guard=leadership).present(datastore.spec_entry.key)
        claim_name(txn, KIND, spec.owner_id, spec.name, image_id)
        txn.put(key(KIND, image_id, "spec"), spec)
        txn.put(key(KIND, image_id, "intent"), new_parts.intent_of(spec))
        txn.put(key(KIND, image_id, "status"), status)
        await draft.repeatable.note(txn, image_id)
        try:
            async with self._front.one_at_a_time():
                await self._store.commit(txn)
        except Conflict as err:
            raise self._lost(err, draft, caller) from err
        return self.get(image_id, caller)

    def _lost(self, err: Conflict, draft: Draft, caller: Caller) -> MolnError:
        if err.key == draft.datastore.spec_entry.key:
            return _no_datastore(draft.datastore.datastore_id)
        if err.key == draft.repeatable.key:
            return MolnError(Reason.CONFLICT, "create image: the same request is under way; ask again")
        return _name_taken(draft.spec.name, caller)

    def _datastore(self, wanted: int) -> DatastoreParts:
        datastore_id = wanted or self._catalog.default_datastore_id()
        datastore = self._catalog.datastore(datastore_id)
        if datastore is None:
            raise _no_datastore(wanted)
        if not datastore.status.is_ready:
            why = datastore.status.message or "it is being prepared"
            raise MolnError(Reason.STATE_FORBIDS, f"datastore {datastore.spec.name} cannot be used now: {why}")
        self._catalog.directory(datastore).check_room(MIB)
        return datastore

    def get(self, image_id: int, caller: Caller) -> Image:
        """One image. Raises NOT_FOUND."""
        return self._catalog.composed(self._visible(image_id, caller))

    def list(self, request: ListImagesRequest, caller: Caller) -> ListImagesResponse:
        """A page of the images that the caller may see, by id."""

        def read(key_id: str) -> Image | None:
            parts = self._catalog.image(int(key_id))
            return self._catalog.composed(parts) if parts and _may_see(parts, caller) else None

        wanted = parse(request.filter, views.IMAGES)
        page = page_of(self._store, KIND, request.page_size, request.page_token, wanted, read)
        items = [image for key_id in page.ids if (image := read(key_id)) is not None]
        return ListImagesResponse(images=items, next_page_token=page.next_token, revision=page.revision)

    async def update(self, request: UpdateImageRequest, caller: Caller, leadership: Leadership) -> Image:
        """Changes fields of the spec. Raises INVALID, ABORTED/ETAG_MISMATCH."""
        parts = self._owned(request.id, caller)
        check_etag(request.etag, parts.spec_entry, f"image {parts.spec.name}")
        spec = apply_mask(parts.spec, request.spec, request.update_mask, images.CHANGEABLE)
        images.check_free_fields("spec.", spec.labels, spec.description, caller, is_public=spec.is_public)
        spec.cause.CopyFrom(cause_of(caller, "UPDATE"))
        entry = parts.spec_entry
        txn = Txn(guard=leadership).unchanged(entry.key, entry.mod_revision).put(entry.key, spec)
        try:
            await self._store.commit(txn)
        except Conflict as err:
            text = f"update image {spec.name}: it was changed at the same time; ask again"
            raise MolnError(Reason.CONFLICT, text) from err
        return self.get(request.id, caller)

    async def delete(self, image_id: int, caller: Caller, leadership: Leadership) -> None:
        """Lets an image be erased, irrevocably. Idempotent. Raises PRECONDITION/IMAGE_IN_USE naming the VMs."""
        parts = self._owned(image_id, caller)
        if parts.intent.desired == ImageDesired.IMAGE_DESIRED_DELETED:
            return
        self._check_unused(parts)
        intent = ImageIntent()
        intent.CopyFrom(parts.intent)
        intent.desired = ImageDesired.IMAGE_DESIRED_DELETED
        intent.cause.CopyFrom(cause_of(caller, "DELETE"))
        entry = parts.intent_entry
        txn = Txn(guard=leadership).unchanged(entry.key, entry.mod_revision).put(entry.key, intent)
        txn.none_under(prefix("imageref", image_id))
        try:
            await self._store.commit(txn)
        except Conflict as err:
            await self._store.cache.wait(await self._store.current_revision(), WAIT_SECONDS)
            self._check_unused(parts)
            text = f"delete image {parts.spec.name}: it was changed at the same time; ask again"
            raise MolnError(Reason.CONFLICT, text) from err

    def _check_unused(self, parts: ImageParts) -> None:
        vms = self._catalog.users_of(parts.image_id)
        if not vms:
            return
        shown = ", ".join(map(str, vms[:10])) + (f" and {len(vms) - 10} more" if len(vms) > 10 else "")
        problem = f"{f'VM {shown} uses' if len(vms) == 1 else f'VMs {shown} use'} it; terminate them first"
        raise MolnError(Reason.IMAGE_IN_USE, f"delete image {parts.spec.name}: {problem}")

    def _visible(self, image_id: int, caller: Caller) -> ImageParts:
        parts = self._catalog.image(image_id)
        if parts is None or not _may_see(parts, caller):
            raise _missing(image_id, caller)
        return parts

    def _owned(self, image_id: int, caller: Caller) -> ImageParts:
        parts = self._visible(image_id, caller)
        if not caller.may_see(parts.spec.owner_id):
            raise _missing(image_id, caller)
        return parts


def _may_see(parts: ImageParts, caller: Caller) -> bool:
    return caller.may_see(parts.spec.owner_id, is_public=parts.spec.is_public)


def _missing(image_id: int, caller: Caller) -> MolnError:
    problem = f"there is no image {image_id} that {caller.name} may use or change; see: moln image list"
    return MolnError(Reason.IMAGE_NOT_FOUND, problem)


def _no_datastore(datastore_id: int) -> MolnError:
    if datastore_id:
        return MolnError(
            Reason.DATASTORE_NOT_FOUND, f"datastore_id: there is no datastore {datastore_id}; see: moln datastore list"
        )
    problem = "the cloud has no default datastore; name one, or make one: moln datastore create default --path FOLDER"
    return MolnError(Reason.DATASTORE_NOT_FOUND, f"datastore_id: {problem}")


def _name_taken(name: str, caller: Caller) -> MolnError:
    problem = f"{caller.name} has an image {name} already; choose another name"
    return invalid("name", problem, reason=Reason.NAME_TAKEN)
