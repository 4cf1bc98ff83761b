"""Creation of VMs, one or a thousand: checked against the index, each one transaction, committed as a group."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from moln.common.v1 import common_pb2
from moln.compute.v1 import template_pb2, vm_pb2, vm_service_pb2
from moln.image.v1 import image_pb2
from services.api.core import compose
from services.api.core.templates import Resolver, complete_template, merge_templates, needed
from services.api.core.usage import Fold, charge
from services.api.index.cloud import CloudIndex
from services.api.usecases.addresses import check_room
from services.api.usecases.resources import catch_up
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError
from services.common.domain.ids import check_name
from services.common.domain.keys import SCHEMA_VERSION
from services.common.domain.reasons import Reason
from services.common.domain.template_images import image_ids
from services.common.resources.records import Repeatable
from services.common.rpc.store_errors import from_store_error
from services.common.store import Conflict, Store, StoreError, Txn, key

_TRIES = 3


class Shape(NamedTuple):
    """A completed template with what every VM of it needs, made once for all equal requests of a batch."""

    template: template_pb2.VmTemplate
    raw: bytes
    amounts: common_pb2.Amounts
    image_ids: tuple[int, ...]
    secrets: dict[str, str]
    template_id: int
    default_name: str


class Creation(NamedTuple):
    """A VM that was created, or would be (id 0)."""

    vm_id: int
    fallback: bytes
    """The VM as it was written, for when it is gone again before it is read."""


class VmCreation:
    """Turns requests into transactions of spec, secrets, intent, references and usage."""

    def __init__(self, store: Store, cloud: CloudIndex) -> None:
        self._store = store
        self._cloud = cloud

    async def create(
        self, requests: Sequence[vm_service_pb2.CreateVmRequest], caller: Caller, tries: int = _TRIES
    ) -> list[Creation | MolnError]:
        """One result per request, in order. What fails leaves nothing; the others are created all the same."""
        results: list[Creation | MolnError | None] = [None] * len(requests)
        shapes = self._shapes(requests, caller, results)
        ids = await self._store.ids.take("vm", sum(result is None for result in results))
        pending: list[tuple[int, int, Txn, bytes]] = []
        for index, request in enumerate(requests):
            shape = shapes[index]
            if results[index] is not None or shape is None:
                continue
            vm_id = ids[len(pending)]
            try:
                txn, raw = await self._transaction(vm_id, request, shape, caller)
            except MolnError as err:
                results[index] = err
            else:
                pending.append((index, vm_id, txn, raw))
        outcomes = await self._store.commit_all([txn for _, _, txn, _ in pending])
        for (index, vm_id, _, raw), outcome in zip(pending, outcomes, strict=True):
            results[index] = _result(vm_id, raw, outcome)
        for index, result in enumerate(results):
            if isinstance(result, MolnError):
                results[index] = await self._reconsider(requests[index], result, caller, tries)
        return [result for result in results if result is not None]

    def _shapes(
        self,
        requests: Sequence[vm_service_pb2.CreateVmRequest],
        caller: Caller,
        results: list[Creation | MolnError | None],
    ) -> list[Shape | None]:
        """The shape of each request; where there is none, its result is set."""
        known: dict[tuple[int, bytes], Shape] = {}
        demand: dict[int, int] = {}
        shapes: list[Shape | None] = []
        for index, request in enumerate(requests):
            shape = None
            try:
                shape = self._shape(request, caller, known)
                check_room(shape.template, self._cloud.catalog, demand)
                if request.validate_only:
                    results[index] = self._preview(request, shape, caller)
            except MolnError as err:
                results[index] = err
            shapes.append(shape)
        return shapes

    def _shape(
        self, request: vm_service_pb2.CreateVmRequest, caller: Caller, known: dict[tuple[int, bytes], Shape]
    ) -> Shape:
        if request.name:
            check_name("name", request.name)
        if request.request_id:
            self._repeatable(request, caller)
        if request.host_id and self._cloud.hosts.get(request.host_id) is None:
            raise MolnError(Reason.HOST_NOT_FOUND, f"host_id: there is no host {request.host_id}; see: moln host list")
        place = (request.template_id, request.template.SerializeToString(deterministic=True))
        shape = known.get(place)
        if shape is None:
            shape = known[place] = self._complete(request, caller)
        return shape

    def _complete(self, request: vm_service_pb2.CreateVmRequest, caller: Caller) -> Shape:
        template, default_name = request.template, "vm"
        if request.template_id:
            catalog = self._cloud.catalog.templates
            base = catalog.spec(catalog.resolve(str(request.template_id), caller, "template_id"))
            assert base is not None  # noqa: S101  for the type checker: it was resolved a line above
            template, default_name = merge_templates(base.value.template, template), base.value.name
        full = complete_template(template, caller, resolver_of(self._cloud, caller))
        secrets = dict(full.context.secret_variables)
        if secrets:
            full.context.ClearField("secret_variables")
        images = sorted(image_ids(full))
        return Shape(
            full, full.SerializeToString(), needed(full), tuple(images), secrets, request.template_id, default_name
        )

    def _repeatable(self, request: vm_service_pb2.CreateVmRequest, caller: Caller) -> Repeatable:
        return Repeatable(self._store, caller, "vm", request.request_id, request)

    async def _reconsider(
        self, request: vm_service_pb2.CreateVmRequest, error: MolnError, caller: Caller, tries: int
    ) -> Creation | MolnError:
        """What failed may have been done before by the same request; or somebody was quicker, and it is tried again."""
        if request.validate_only:
            return error
        try:
            former = await self._repeatable(request, caller).first_result()
        except MolnError as err:
            return err
        if former is not None:
            gone = compose.number(1, former) + compose.frame(9, compose.number(1, vm_pb2.VM_STATE_DONE))
            return Creation(former, gone)
        if error.reason != Reason.CONFLICT or not tries:
            return error
        await catch_up(self._store)
        return (await self.create([request], caller, tries - 1))[0]

    async def _transaction(
        self, vm_id: int, request: vm_service_pb2.CreateVmRequest, shape: Shape, caller: Caller
    ) -> tuple[Txn, bytes]:
        uid = str(uuid.uuid4())
        spec, intent = self._parts(vm_id, uid, request, shape, caller)
        spec_key = key("vm", vm_id, "spec")
        txn = Txn()
        txn.absent(spec_key)
        txn.put(spec_key, spec)
        txn.put(key("vm", vm_id, "intent"), intent)
        if shape.secrets:
            secrets = vm_pb2.VmSecrets(uid=uid, context_variables=shape.secrets, schema_version=SCHEMA_VERSION)
            txn.put(key("vm", vm_id, "secrets"), secrets)
        for image_id in shape.image_ids:
            refer(self._cloud, txn, image_id, vm_id, uid)
        txn.fold(key("usage", caller.user_id), self._charge(shape, caller))
        if request.request_id:
            await self._repeatable(request, caller).note(txn, vm_id)
        raw = b"".join(
            (compose.number(1, vm_id), compose.frame(2, uid.encode()), compose.frame(3, spec), compose.frame(4, intent))
        )
        return txn, raw

    def _charge(self, shape: Shape, caller: Caller) -> Fold:
        user = self._cloud.catalog.get("user", caller.user_id)
        return charge(shape.amounts, user.value.limits if user is not None else common_pb2.Amounts(), caller.name)

    def _parts(
        self, vm_id: int, uid: str, request: vm_service_pb2.CreateVmRequest, shape: Shape, caller: Caller
    ) -> tuple[bytes, bytes]:
        now = Timestamp()
        now.GetCurrentTime()
        cause = common_pb2.Cause(actor=caller.name, request_id=caller.request_id, reason="CREATE", time=now)
        spec = vm_pb2.VmSpec(
            uid=uid,
            name=request.name or f"{shape.default_name}-{vm_id}",
            owner_id=caller.user_id,
            owner=caller.name,
            template_id=shape.template_id,
            cause=cause,
            schema_version=SCHEMA_VERSION,
            next_disk_id=len(shape.template.disks),
            next_nic_id=len(shape.template.nics),
        )
        intent = vm_pb2.VmIntent(
            uid=uid,
            desired=vm_pb2.DESIRED_STATE_HELD if request.is_held else vm_pb2.DESIRED_STATE_RUNNING,
            generation=1,
            create_time=now,
            change_time=now,
            cause=cause,
            schema_version=SCHEMA_VERSION,
            owner_id=caller.user_id,
            needs_addresses=bool(shape.template.nics),
            needs_volumes=bool(shape.template.disks or shape.image_ids),
            wanted_host_id=request.host_id,
        )
        return spec.SerializeToString() + compose.frame(5, shape.raw), intent.SerializeToString()

    def _preview(self, request: vm_service_pb2.CreateVmRequest, shape: Shape, caller: Caller) -> Creation:
        usage = self._cloud.catalog.get("usage", caller.user_id, "")
        self._charge(shape, caller)(usage.raw if usage is not None else None)
        for image_id in shape.image_ids:
            refer(self._cloud, Txn(), image_id, 0, "")
        spec, intent = self._parts(0, "", request, shape, caller)
        return Creation(0, compose.frame(3, spec) + compose.frame(4, intent))


def resolver_of(cloud: CloudIndex, caller: Caller) -> Resolver:
    """How names in a caller's templates become ids."""
    catalog, settings = cloud.catalog, cloud.catalog.cloud()

    def image_mib(image_id: int) -> int:
        status = catalog.get("image", image_id, "status")
        return -(-status.value.virtual_size_bytes // (1 << 20)) if status is not None else 0

    def image_format(image_id: int) -> str:
        status = catalog.get("image", image_id, "status")
        return str(status.value.format) if status is not None else ""

    return Resolver(
        image=lambda text, field: catalog.images.resolve(text, caller, field),
        network=lambda text, field: catalog.networks.resolve(text, caller, field),
        image_size=image_mib,
        image_format=image_format,
        default_network_id=settings.value.default_network_id if settings is not None else 0,
    )


def refer(cloud: CloudIndex, txn: Txn, image_id: int, vm_id: int, uid: str) -> None:
    """Adds a VM's use of an image to a transaction. Raises IMAGE_NOT_FOUND where the image is being deleted."""
    intent = cloud.catalog.get("image", image_id, "intent")
    if intent is None or intent.value.desired == image_pb2.IMAGE_DESIRED_DELETED:
        problem = f"image {image_id} is being deleted"
        raise MolnError(Reason.IMAGE_NOT_FOUND, f"template.disks: {problem}", fields=[("template.disks", problem)])
    txn.unchanged(intent.key, intent.mod_revision)
    txn.put(key("imageref", image_id, f"{vm_id:010d}"), image_pb2.ImageReference(vm_uid=uid))


def _result(vm_id: int, raw: bytes, outcome: int | Exception) -> Creation | MolnError:
    match outcome:
        case int():
            return Creation(vm_id, raw)
        case MolnError():
            return outcome
        case Conflict():
            return MolnError(Reason.CONFLICT, f"create VM: {outcome.key} was changed at the same time; try again")
        case StoreError():
            return from_store_error(outcome)
        case _:
            raise outcome
