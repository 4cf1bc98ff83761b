"""A machine that will never come back: what was left on it is given up, so that nothing waits for it for ever."""

from __future__ import annotations

import asyncio

from moln.compute.v1 import host_pb2, vm_pb2
from services.api.index.cloud import CloudIndex
from services.api.index.hosts import HostRecord
from services.api.index.vms import VmRecord
from services.api.usecases.hosts import Hosts
from services.api.usecases.resources import catch_up
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.domain.words import counted, them
from services.common.obs.logs import get_logger
from services.common.store import Conflict, Store, Txn, key

SETTLE_S = 20.0
"""In which the scheduler gives back the placements of terminated VMs of which nothing is left."""
_log = get_logger("hosts")


class LostHosts:
    """Deletes hosts, also those whose machine is lost."""

    def __init__(self, store: Store, cloud: CloudIndex, hosts: Hosts) -> None:
        self._store, self._cloud, self._hosts = store, cloud, hosts
        self._woken = asyncio.Event()
        cloud.vms.on_change(self._changed)

    def _changed(self, _: VmRecord, __: set[str]) -> None:
        self._woken.set()

    async def delete(self, host_id: int, is_lost: bool, caller: Caller) -> None:
        """Deletes a host. With `is_lost`, of a fenced one, what VMs that end or run elsewhere have left there is given
        up first. Raises STATE_FORBIDS where it is not fenced, HOST_IN_USE while VMs that do not end are placed there.
        """
        if is_lost:
            record = self._hosts.creation.existing(host_id)
            self._check(record)
            await self._give_up(record)
            await self._settle(record)
        await self._hosts.delete(host_id, caller)

    def _check(self, record: HostRecord) -> None:
        liveness = record.liveness_value()
        if liveness is None or liveness.state != host_pb2.LIVENESS_STATE_FENCED:
            problem = (
                f"only a fenced host can be lost; make certain that its machine is off: moln host fence {record.name}"
            )
            raise MolnError(Reason.STATE_FORBIDS, f"delete host {record.name}: {problem}")
        staying = [vm for vm in self._vms(record) if not _has_left(vm, record.id)]
        if staying:
            ids = ", ".join(str(vm.id) for vm in staying[:10]) + (", …" if len(staying) > 10 else "")
            belong = f"{counted(len(staying), 'VM')} placed there ({ids})"
            problem = f"{belong}: disks are lost with it, terminate {them(len(staying))} first"
            raise MolnError(Reason.HOST_IN_USE, f"delete host {record.name}: {problem}", metadata={"vms": ids})

    async def _give_up(self, record: HostRecord) -> None:
        """Removes the statuses that the host has left, each while it is fenced and nothing has changed."""
        for _ in range(4):
            txns = [txn for vm in self._vms(record) if (txn := self._removal(vm, record)) is not None]
            outcomes = await self._store.commit_all(txns)
            await catch_up(self._store)
            wrong = next((each for each in outcomes if isinstance(each, Exception)), None)
            if wrong is None:
                _log.warning("what was left on a lost host is given up", host=record.name, vms=len(txns))
                return
            if not isinstance(wrong, Conflict):
                raise wrong
            self._check(record)
        raise MolnError(Reason.CONFLICT, f"delete host {record.name}: its VMs are being changed by others; try again")

    def _removal(self, vm: VmRecord, record: HostRecord) -> Txn | None:
        status = vm.statuses.get(record.id)
        if status is None or vm.intent is None or record.liveness is None:
            return None
        txn = Txn().unchanged(record.liveness.key, record.liveness.mod_revision).absent(key("hostconn", record.id))
        txn.unchanged(vm.intent.key, vm.intent.mod_revision)
        txn.unchanged(key("vm", vm.id, "placement"), vm.placement.mod_revision if vm.placement is not None else 0)
        return txn.unchanged(status.key, status.mod_revision).delete(status.key)

    async def _settle(self, record: HostRecord) -> None:
        """Waits until no VM is there any more; the deletion that follows says which are, where that takes too long."""
        try:
            async with asyncio.timeout(SETTLE_S):
                while self._vms(record):
                    self._woken.clear()
                    await self._woken.wait()
        except TimeoutError:
            return

    def _vms(self, record: HostRecord) -> list[VmRecord]:
        found = (self._cloud.vms.by_key(key_id) for key_id in sorted(self._cloud.vms.by_host.get(record.id, ())))
        return [vm for vm in found if vm is not None]


def _has_left(vm: VmRecord, host_id: int) -> bool:
    """It ends, or belongs to another host and has no move under way that this one takes part in."""
    if vm.intent is None or vm.intent.value.desired == vm_pb2.DESIRED_STATE_TERMINATED:
        return True
    placement = vm.placement.value if vm.placement is not None else None
    return placement is not None and placement.host_id not in (0, host_id) and not placement.HasField("move")
