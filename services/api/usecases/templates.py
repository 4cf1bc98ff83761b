"""Named templates: create, read, change, delete."""

from __future__ import annotations

import uuid

from moln.compute.v1 import template_pb2, template_service_pb2
from moln.operations.v1 import records_pb2
from services.api.core.templates import check_labels, check_template
from services.api.index.cloud import CloudIndex
from services.api.usecases.resources import cause_of, check_etag, swap
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError
from services.common.domain.ids import check_name
from services.common.domain.keys import SCHEMA_VERSION
from services.common.domain.reasons import Reason
from services.common.filters import Vocabulary, parse
from services.common.resources import page_token
from services.common.resources.update_mask import apply_mask
from services.common.store import Conflict, Entry, Store, Txn, key

_VOCABULARY: Vocabulary[tuple[int, template_pb2.TemplateSpec]] = Vocabulary(
    keys={"id": lambda item: item[0], "name": lambda item: item[1].name},
    labels=lambda item: dict(item[1].template.labels),
)


class Templates:
    """Templates, as their owners see them."""

    def __init__(self, store: Store, cloud: CloudIndex) -> None:
        self._store = store
        self._cloud = cloud

    async def create(
        self, request: template_service_pb2.CreateTemplateRequest, caller: Caller
    ) -> template_pb2.Template:
        """Creates a template. Names of images and networks are looked up when it is instantiated."""
        check_name("name", request.name)
        check_template(request.template, caller)
        check_labels(request.template.labels, "template.labels")
        cause = cause_of(caller, "CREATE")
        spec = template_pb2.TemplateSpec(
            uid=str(uuid.uuid4()),
            name=request.name,
            owner_id=caller.user_id,
            template=request.template,
            create_time=cause.time,
            cause=cause,
            schema_version=SCHEMA_VERSION,
            is_public=request.is_public,
        )
        if request.validate_only:
            return template_pb2.Template(spec=spec)
        template_id = (await self._store.ids.take("template", 1))[0]
        name_key = key("name", "template", f"{caller.user_id}/{request.name}")
        txn = Txn()
        txn.absent(name_key)
        txn.put(name_key, records_pb2.NameRecord(id=template_id))
        txn.put(key("template", template_id, "spec"), spec)
        try:
            await self._store.commit(txn)
        except Conflict as err:
            raise MolnError(
                Reason.NAME_TAKEN, f"create template: {caller.name} has a template {request.name} already"
            ) from err
        return self.get(template_id, caller)

    def get(self, template_id: int, caller: Caller) -> template_pb2.Template:
        """One template. Raises NOT_FOUND."""
        return _message(template_id, self._visible(template_id, caller))

    def list(
        self, request: template_service_pb2.ListTemplatesRequest, caller: Caller
    ) -> template_service_pb2.ListTemplatesResponse:
        """A page of templates by id."""
        wanted = parse(request.filter, _VOCABULARY)
        token = page_token.decode(request.page_token, wanted.digest)
        limit = page_token.size(request.page_size)
        found = [
            (entry.id, entry)
            for (kind, _, part), entry in sorted(self._cloud.catalog.parts.items())
            if kind == "template"
            and part == "spec"
            and entry.id > token.last
            and caller.may_see(entry.value.owner_id, is_public=entry.value.is_public)
            and wanted.matches((int(entry.id), entry.value))
        ]
        page, revision = found[:limit], self._store.cache.revision
        is_more = len(found) > limit
        return template_service_pb2.ListTemplatesResponse(
            templates=[_message(int(key_id), entry) for key_id, entry in page],
            next_page_token=page_token.encode(page[-1][0], wanted.digest, revision) if is_more else "",
            revision=revision,
        )

    async def update(
        self, request: template_service_pb2.UpdateTemplateRequest, caller: Caller
    ) -> template_pb2.Template:
        """Changes the shape or whether it is public."""

        def build() -> Txn:
            entry = self._owned(request.id, caller)
            check_etag(request.etag, entry, f"template {request.id}")
            spec = apply_mask(entry.value, request.spec, request.update_mask, ("template", "is_public"))
            check_template(spec.template, caller, path="spec.template")
            spec.cause.CopyFrom(cause_of(caller, "UPDATE"))
            txn = Txn()
            txn.unchanged(entry.key, entry.mod_revision)
            txn.put(entry.key, spec)
            return txn

        await swap(self._store, f"update template {request.id}", build)
        return self.get(request.id, caller)

    async def delete(self, template_id: int, caller: Caller) -> None:
        """Deletes a template; VMs made from it stay."""

        def build() -> Txn:
            entry = self._owned(template_id, caller)
            txn = Txn()
            txn.unchanged(entry.key, entry.mod_revision)
            txn.delete(entry.key)
            txn.delete(key("name", "template", f"{entry.value.owner_id}/{entry.value.name}"))
            return txn

        await swap(self._store, f"delete template {template_id}", build)

    def _visible(self, template_id: int, caller: Caller) -> Entry:
        entry = self._cloud.catalog.templates.spec(template_id)
        if entry is None or not caller.may_see(entry.value.owner_id, is_public=entry.value.is_public):
            raise _missing(template_id, caller)
        return entry

    def _owned(self, template_id: int, caller: Caller) -> Entry:
        entry = self._visible(template_id, caller)
        if not caller.may_see(entry.value.owner_id):
            raise _missing(template_id, caller)
        return entry


def _missing(template_id: int, caller: Caller) -> MolnError:
    return MolnError(
        Reason.TEMPLATE_NOT_FOUND, f"there is no template {template_id} that {caller.name} may use or change"
    )


def _message(template_id: int, entry: Entry) -> template_pb2.Template:
    return template_pb2.Template(id=template_id, spec=entry.value, etag=str(entry.mod_revision))
