"""Networks, as their owners see and change them. One transaction each, under the leadership it is given."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import NamedTuple

from moln.network.v1.network_pb2 import (
    Lease,
    Network,
    NetworkDesired,
    NetworkIntent,
    NetworkSpec,
)
from moln.network.v1.network_service_pb2 import (
    CreateNetworkRequest,
    ListLeasesRequest,
    ListLeasesResponse,
    ListNetworksRequest,
    ListNetworksResponse,
    UpdateNetworkRequest,
)
from moln.operations.v1.records_pb2 import CloudRecord
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError, invalid
from services.common.domain.keys import SCHEMA_VERSION
from services.common.domain.reasons import Reason
from services.common.filters import parse
from services.common.resources import page_token
from services.common.resources.pages import page_of
from services.common.resources.records import Repeatable, cause_of, check_etag, claim_name, name_key
from services.common.resources.stored import stored
from services.common.resources.update_mask import apply_mask
from services.common.store import Conflict, Entry, Leadership, Store, Txn, key, prefix
from services.netsvc.core import networks, ranges, views

KIND = "network"
WAIT_SECONDS = 5.0


class Found(NamedTuple):
    """A network as the cache has it."""

    spec: Entry
    intent: Entry
    value: NetworkSpec


class Networks:
    """The use cases of networks and their leases."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cache = store.cache

    async def create(self, request: CreateNetworkRequest, caller: Caller, leadership: Leadership) -> Network:
        """Creates a network, or only checks it. Let in one at a time: it looks at all others.

        Raises INVALID naming the field, EXISTS (NAME_TAKEN, BRIDGE_TAKEN, NETWORK_OVERLAPS), DENIED.
        """
        networks.check(request.spec, caller)
        repeatable = Repeatable(self._store, caller, KIND, request.request_id, request)
        if (first := await repeatable.first_result()) is not None:
            return self.get(first, caller)
        if self._cache.get("name", KIND, f"{caller.user_id}/{request.spec.name}") is not None:
            raise _name_taken(request.spec.name, caller)
        if request.validate_only:
            return self._composed(0, self._complete(request.spec, 0, caller), NetworkIntent(), (0, 0))
        network_id = (await self._store.ids.take(KIND, 1))[0]
        spec = self._complete(request.spec, network_id, caller)
        await self._insert(network_id, spec, repeatable, caller, leadership)
        return self.get(network_id, caller)

    async def _insert(
        self, network_id: int, spec: NetworkSpec, repeatable: Repeatable, caller: Caller, leadership: Leadership
    ) -> None:
        intent = NetworkIntent(
            uid=spec.uid, desired=NetworkDesired.NETWORK_DESIRED_READY, cause=spec.cause, schema_version=SCHEMA_VERSION
        )
        txn = Txn(guard=leadership)
        claim_name(txn, KIND, caller.user_id, spec.name, network_id)
        txn.put(key(KIND, network_id, "spec"), spec).put(key(KIND, network_id, "intent"), intent)
        await repeatable.note(txn, network_id)
        try:
            await self._store.commit(txn)
        except Conflict as err:
            if err.key == repeatable.key:
                raise MolnError(Reason.CONFLICT, "create network: the same request is under way; ask again") from err
            raise _name_taken(spec.name, caller) from err

    def _complete(self, wanted: NetworkSpec, network_id: int, caller: Caller) -> NetworkSpec:
        """The spec as it is stored, checked beside the other networks."""
        cloud = stored(self._cache.get("cloud", "settings"), CloudRecord) or CloudRecord()
        spec = networks.complete(wanted, network_id, cloud.uid)
        networks.check_beside(spec, self._others(network_id))
        spec.uid = str(uuid.uuid4())
        spec.owner_id, spec.owner = caller.user_id, caller.name
        spec.cause.CopyFrom(cause_of(caller, "CREATE"))
        spec.create_time.CopyFrom(spec.cause.time)
        spec.schema_version = SCHEMA_VERSION
        return spec

    def get(self, network_id: int, caller: Caller) -> Network:
        """One network. Raises NOT_FOUND."""
        found = self._visible(network_id, caller)
        return self._network(network_id, found)

    def list(self, request: ListNetworksRequest, caller: Caller) -> ListNetworksResponse:
        """A page of the networks that the caller may see, by id."""

        def read(key_id: str) -> Network | None:
            found = self._find(int(key_id))
            return self._network(int(key_id), found) if found and _may_see(found.value, caller) else None

        wanted = parse(request.filter, views.NETWORKS)
        page = page_of(self._store, KIND, request.page_size, request.page_token, wanted, read)
        items = [network for key_id in page.ids if (network := read(key_id)) is not None]
        return ListNetworksResponse(networks=items, next_page_token=page.next_token, revision=page.revision)

    async def update(self, request: UpdateNetworkRequest, caller: Caller, leadership: Leadership) -> Network:
        """Changes fields of the spec. Let in one at a time. Raises INVALID, ABORTED/ETAG_MISMATCH, NETWORK_OVERLAPS."""
        found = self._owned(request.id, caller)
        check_etag(request.etag, found.spec, f"network {found.value.name}")
        spec = apply_mask(found.value, request.spec, request.update_mask, networks.CHANGEABLE)
        networks.check_change(found.value, spec, caller)
        networks.check_beside(spec, self._others(request.id))
        spec.cause.CopyFrom(cause_of(caller, "UPDATE"))
        txn = Txn(guard=leadership).unchanged(found.spec.key, found.spec.mod_revision).put(found.spec.key, spec)
        await self._commit(txn, f"update network {found.value.name}")
        return self.get(request.id, caller)

    async def delete(self, network_id: int, caller: Caller, leadership: Leadership) -> None:
        """Deletes a network. Raises NETWORK_IN_USE naming the VMs, DEFAULT_OBJECT for the cloud's default."""
        found = self._owned(network_id, caller)
        self._check_unused(network_id, found.value)
        txn = Txn(guard=leadership)
        txn.unchanged(found.spec.key, found.spec.mod_revision).unchanged(found.intent.key, found.intent.mod_revision)
        settings = self._cache.get("cloud", "settings")
        txn.unchanged(key("cloud", "settings"), settings.mod_revision if settings else 0)
        txn.none_under(prefix("lease", network_id))
        txn.delete(found.spec.key).delete(found.intent.key)
        txn.delete(name_key(KIND, found.value.owner_id, found.value.name))
        try:
            await self._store.commit(txn)
        except Conflict as err:
            await self._cache.wait(await self._store.current_revision(), WAIT_SECONDS)
            self._check_unused(network_id, found.value)
            raise MolnError(
                Reason.CONFLICT, f"delete network {found.value.name}: it is being changed; ask again"
            ) from err

    def leases(self, request: ListLeasesRequest, caller: Caller) -> ListLeasesResponse:
        """A page of a network's leases by address: all for its owner and administrators, else those of own VMs."""
        found = self._visible(request.id, caller)
        place = page_token.decode(request.page_token, f"l{request.id}")
        most = page_token.size(request.page_size)
        given = self._cache.object("lease", request.id)
        after = int(place.last) if place.last.isdigit() else -1
        order = sorted(address for text in given if (address := ranges.ipv4(text) or 0) > after)
        items: list[Lease] = []
        for address in order:
            lease = stored(given[ranges.text(address)], Lease)
            if lease is None or not self._may_see_lease(lease, found.value, caller):
                continue
            if len(items) == most:
                last = ranges.ipv4(items[-1].ipv4)
                token = page_token.encode(str(last), f"l{request.id}", self._cache.revision)
                return ListLeasesResponse(leases=items, next_page_token=token, revision=self._cache.revision)
            items.append(lease)
        return ListLeasesResponse(leases=items, revision=self._cache.revision)

    # ------------------------------------------------------------------------------------------------ the rest

    def _check_unused(self, network_id: int, spec: NetworkSpec) -> None:
        given = self._cache.object("lease", network_id)
        if given:
            vms = sorted({lease.vm_id for entry in given.values() if (lease := stored(entry, Lease))})
            shown = ", ".join(map(str, vms[:10])) + (f" and {len(vms) - 10} more" if len(vms) > 10 else "")
            problem = f"{len(given)} of its addresses are given out, to VM {shown}; terminate them first"
            raise MolnError(Reason.NETWORK_IN_USE, f"delete network {spec.name}: {problem}")
        cloud = stored(self._cache.get("cloud", "settings"), CloudRecord)
        if cloud is not None and cloud.default_network_id == network_id:
            problem = "it is the cloud's default network; name another one first"
            raise MolnError(Reason.DEFAULT_OBJECT, f"delete network {spec.name}: {problem}")

    async def _commit(self, txn: Txn, what: str) -> None:
        try:
            await self._store.commit(txn)
        except Conflict as err:
            raise MolnError(Reason.CONFLICT, f"{what}: it was changed at the same time; ask again") from err

    def _others(self, but: int) -> Iterator[NetworkSpec]:
        for name in self._cache.ids(KIND):
            spec = stored(self._cache.get(KIND, name, "spec"), NetworkSpec)
            if spec is not None and int(name) != but:
                yield spec

    def _find(self, network_id: int) -> Found | None:
        parts = self._cache.object(KIND, network_id)
        spec, intent = parts.get("spec"), parts.get("intent")
        value = stored(spec, NetworkSpec)
        if spec is None or intent is None or value is None:
            return None
        return Found(spec, intent, value)

    def _visible(self, network_id: int, caller: Caller) -> Found:
        found = self._find(network_id)
        if found is None or not _may_see(found.value, caller):
            raise _missing(network_id, caller)
        return found

    def _owned(self, network_id: int, caller: Caller) -> Found:
        found = self._visible(network_id, caller)
        if not caller.may_see(found.value.owner_id):
            raise _missing(network_id, caller)
        return found

    def _network(self, network_id: int, found: Found) -> Network:
        intent = stored(found.intent, NetworkIntent) or NetworkIntent()
        return self._composed(network_id, found.value, intent, (found.spec.mod_revision, found.intent.mod_revision))

    def _composed(
        self, network_id: int, spec: NetworkSpec, intent: NetworkIntent, revisions: tuple[int, int]
    ) -> Network:
        used = len(self._cache.object("lease", network_id)) if network_id else 0
        return views.compose(network_id, spec, intent, revisions, used)

    def _may_see_lease(self, lease: Lease, spec: NetworkSpec, caller: Caller) -> bool:
        if caller.may_see(spec.owner_id):
            return True
        intent = self._cache.get("vm", lease.vm_id, "intent")
        owner_id = getattr(intent.value, "owner_id", 0) if intent is not None else 0
        return bool(owner_id == caller.user_id)


def _may_see(spec: NetworkSpec, caller: Caller) -> bool:
    return caller.may_see(spec.owner_id, is_public=spec.is_public)


def _missing(network_id: int, caller: Caller) -> MolnError:
    problem = f"there is no network {network_id} that {caller.name} may use or change; see: moln net list"
    return MolnError(Reason.NETWORK_NOT_FOUND, problem)


def _name_taken(name: str, caller: Caller) -> MolnError:
    problem = f"{caller.name} has a network {name} already; choose another name"
    return invalid("spec.name", problem, reason=Reason.NAME_TAKEN)
