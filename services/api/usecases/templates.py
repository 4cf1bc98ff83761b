"""Named templates: create, read, change, delete."""

from __future__ import annotations

import uuid

from moln.compute.v1 import template_pb2, template_service_pb2
from services.api.core.templates import check_stored_template
from services.api.index.cloud import CloudIndex
from services.api.usecases.resources import create_once, swap
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError
from services.common.domain.ids import check_name
from services.common.domain.keys import SCHEMA_VERSION
from services.common.domain.reasons import Reason
from services.common.filters import Vocabulary, parse
from services.common.resources.pages import page_of
from services.common.resources.records import Repeatable, cause_of, check_etag, claim_name, name_key
from services.common.resources.update_mask import apply_mask
from services.common.store import Entry, Store, Txn, key

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
        check_stored_template(request.template, caller)
        repeatable = Repeatable(self._store, caller, "template", request.request_id, request)
        spec = _new_spec(request, caller)
        if request.validate_only:
            return template_pb2.Template(spec=spec)

        def build(template_id: int) -> Txn:
            txn = Txn()
            claim_name(txn, "template", caller.user_id, request.name, template_id)
            return txn.put(key("template", template_id, "spec"), spec)

        problem = f"{caller.name} has a template {request.name} already; choose another name"
        taken = MolnError(Reason.NAME_TAKEN, f"create template: {problem}", fields=[("name", problem)])
        template_id, _ = await create_once(self._store, "template", repeatable, taken, build)
        return self.get(template_id, caller)

    def get(self, template_id: int, caller: Caller) -> template_pb2.Template:
        """One template. Raises NOT_FOUND."""
        return _message(template_id, self._visible(template_id, caller))

    def list(
        self, request: template_service_pb2.ListTemplatesRequest, caller: Caller
    ) -> template_service_pb2.ListTemplatesResponse:
        """A page of templates by id."""
        wanted = parse(request.filter, _VOCABULARY)

        def read(key_id: str) -> tuple[int, template_pb2.TemplateSpec] | None:
            return self._item(key_id, caller)

        page = page_of(self._store, "template", request.page_size, request.page_token, wanted, read)
        return template_service_pb2.ListTemplatesResponse(
            templates=[self.get(int(key_id), caller) for key_id in page.ids],
            next_page_token=page.next_token,
            revision=page.revision,
        )

    def _item(self, key_id: str, caller: Caller) -> tuple[int, template_pb2.TemplateSpec] | None:
        entry = self._cloud.catalog.templates.spec(int(key_id))
        if entry is None or not caller.may_see(entry.value.owner_id, is_public=entry.value.is_public):
            return None
        return int(key_id), entry.value

    async def update(
        self, request: template_service_pb2.UpdateTemplateRequest, caller: Caller
    ) -> template_pb2.Template:
        """Changes the shape or whether it is public."""

        def build() -> Txn:
            entry = self._owned(request.id, caller)
            check_etag(request.etag, entry, f"template {request.id}")
            spec = apply_mask(entry.value, request.spec, request.update_mask, ("template", "is_public"))
            check_stored_template(spec.template, caller, path="spec.template")
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
            txn.delete(name_key("template", entry.value.owner_id, entry.value.name))
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


def _new_spec(request: template_service_pb2.CreateTemplateRequest, caller: Caller) -> template_pb2.TemplateSpec:
    cause = cause_of(caller, "CREATE")
    return template_pb2.TemplateSpec(
        uid=str(uuid.uuid4()),
        name=request.name,
        owner_id=caller.user_id,
        template=request.template,
        create_time=cause.time,
        cause=cause,
        schema_version=SCHEMA_VERSION,
        is_public=request.is_public,
    )


def _missing(template_id: int, caller: Caller) -> MolnError:
    return MolnError(
        Reason.TEMPLATE_NOT_FOUND, f"there is no template {template_id} that {caller.name} may use or change"
    )


def _message(template_id: int, entry: Entry) -> template_pb2.Template:
    return template_pb2.Template(id=template_id, spec=entry.value, etag=str(entry.mod_revision))
