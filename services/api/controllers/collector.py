"""The collector: removes what is left of a terminated VM once every other service has given back its part."""

from __future__ import annotations

import asyncio

from services.api.core.templates import needed
from services.api.core.usage import give_back
from services.api.index.cloud import CloudIndex
from services.api.index.vms import VmRecord
from services.common.domain.template_images import image_ids
from services.common.obs.logs import get_logger
from services.common.resources.records import guest_key
from services.common.store import Conflict, Leadership, Store, Txn, key

_MAX_BATCH = 2000
_OTHERS = ("placement", "addresses", "volumes")
_log = get_logger("collector")


class Collector:
    """Level-triggered: looks at the VMs that are terminating, and collects those that are bare."""

    def __init__(self, store: Store, cloud: CloudIndex) -> None:
        self._store = store
        self._cloud = cloud
        self._candidates: set[str] = set()
        self._wake = asyncio.Event()
        cloud.vms.on_change(self._changed)

    def _changed(self, record: VmRecord, _: set[str]) -> None:
        if record.key_id in self._cloud.vms.ending and _is_bare(record):
            self._candidates.add(record.key_id)
            self._wake.set()

    async def run(self, leadership: Leadership) -> None:
        """Until leadership is lost."""
        self._candidates = set(self._cloud.vms.ending)
        while True:
            if not self._candidates:
                await self._wake.wait()
            self._wake.clear()
            await self._collect(leadership)

    async def _collect(self, leadership: Leadership) -> None:
        batch = sorted(self._candidates)[:_MAX_BATCH]
        self._candidates.difference_update(batch)
        records = [record for key_id in batch if (record := self._cloud.vms.by_key(key_id)) is not None]
        bare = [record for record in records if record.key_id in self._cloud.vms.ending and _is_bare(record)]
        outcomes = await self._store.commit_all([self._removal(record, leadership) for record in bare])
        for record, outcome in zip(bare, outcomes, strict=True):
            if isinstance(outcome, Conflict):
                self._candidates.add(record.key_id)
            elif isinstance(outcome, Exception):
                raise outcome
        if self._candidates:
            await asyncio.sleep(0.05)

    def _removal(self, record: VmRecord, leadership: Leadership) -> Txn:
        assert record.intent is not None  # noqa: S101  for the type checker: an ending VM has an intent
        txn = Txn(guard=leadership)
        txn.unchanged(record.intent.key, record.intent.mod_revision)
        for part in _OTHERS:
            txn.absent(key("vm", record.id, part))
        txn.none_under(key("vm", record.id, "status/"))
        txn.delete(record.intent.key)
        txn.delete(key("vm", record.id, "secrets"))
        if record.spec is not None:
            template = record.spec.value.template
            txn.delete(record.spec.key)
            if record.spec.value.imported_as:
                txn.delete(guest_key(record.uid))
            txn.fold(key("usage", record.owner_id), give_back(needed(template)))
            for image_id in image_ids(template):
                txn.delete(key("imageref", image_id, record.key_id))
        return txn


def _is_bare(record: VmRecord) -> bool:
    return not record.statuses and record.placement is None and record.addresses is None and record.volumes is None
