"""What each deed amounts to on a real hypervisor: a start is a plan of steps, an end takes everything down in order.

Each deed is idempotent, also after a crash of the agent in the middle. Must not decide when a deed is due.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from moln.image.v1.image_pb2 import Datastore
from moln.node.v1.node_service_pb2 import VmOrder
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.rpc import connect
from services.hostagent.context import variables_of
from services.hostagent.drivers.libvirt.compose import Endpoint, compose, disk_plans, domain_name, kernel_plans
from services.hostagent.drivers.libvirt.guests import Guests
from services.hostagent.drivers.libvirt.migration import Migration
from services.hostagent.drivers.libvirt.operations import operate
from services.hostagent.drivers.libvirt.operations.base import Tools
from services.hostagent.drivers.libvirt.saving import RestoreGuest, Saving
from services.hostagent.drivers.libvirt.spec import Devices, DomainSpec, Mark, MemorySpec
from services.hostagent.drivers.libvirt.steps import (
    AdoptGuest,
    ClaimFolder,
    ConnectNetwork,
    MakeContext,
    Percent,
    StageDisk,
    StartGuest,
    as_reason,
    remove_guest,
)
from services.hostagent.drivers.libvirt.transfer import Transfer, record_of
from services.hostagent.drivers.plans import Step, failure, run_plan
from services.hostagent.drivers.ports import DONE, Deed, Outcome, Work
from services.hostagent.network.bridges import Bridges
from services.hostagent.network.spec import BridgeSpec, bridges_of
from services.hostagent.storage.disk_snapshots import snapshots_told
from services.hostagent.storage.disks import DiskMaker
from services.hostagent.storage.folders import NodeFolders, VmFolder, VmRecord
from services.hostagent.storage.handover import Handover
from services.hostagent.storage.volumes import VolumeStore

PREPARE, STOP, SAVE = "prepare", "stop_guest", "save_memory"
STARTED = Outcome(True, cleared=("needs_restart", "restart_fields", "saved"))
"""Whatever waited for a start has had it."""
_STEP_OF = {
    Deed.START: PREPARE, Deed.SUSPEND: SAVE, Deed.OPERATE: "operate", Deed.UPLOAD: "upload",
    Deed.HAND_OVER: "checksums", Deed.FETCH: "fetch", Deed.RECEIVE: "receive", Deed.MIGRATE: "migrate",
}  # fmt: skip


class GuestWork:
    """Does deeds. `endpoint` is set before the first start; with `bridges` None nothing is done to the network."""

    def __init__(
        self, guests: Guests, folders: NodeFolders, disks: DiskMaker, bridges: Bridges | None,
        volumes: VolumeStore | None = None, migration: Migration | None = None,
    ) -> None:  # fmt: skip
        self._guests, self._folders, self._disks, self._bridges = guests, folders, disks, bridges
        self._saving = Saving(guests, guests.live)
        self._migration = migration or Migration()
        self._volumes = volumes or VolumeStore(connect)
        self._transfer = Transfer(self._saving, self._volumes)
        self.endpoint = Endpoint("", "qemu", "")

    def see(self, datastores: Sequence[Datastore]) -> None:
        """These datastores exist; whether the node sees their files is found out when needed."""
        self._disks.datastores = datastores

    async def perform(self, work: Work) -> Outcome:
        """Does the deed to its end. Failures come back as an outcome with the step."""
        try:
            return await self._do(work)
        except (MolnError, OSError) as err:
            return failure(_STEP_OF.get(work.deed, STOP), err)

    async def _do(self, work: Work) -> Outcome:
        match work.deed:
            case Deed.START:
                return await self._start(work)
            case Deed.SUSPEND:
                return await self._suspend(work)
            case Deed.OPERATE:
                return await operate(self.tools, work)
            case Deed.UPLOAD:
                return await self._transfer.upload(self.tools, work)
            case Deed.HAND_OVER:
                return await self._transfer.hand_over(self.tools, work)
            case Deed.RECEIVE:
                return await self._migration.receive(self.tools, work)
            case Deed.MIGRATE:
                return await self._migration.migrate(self.tools, work)
            case Deed.FETCH:
                return await self._transfer.fetch(self.tools, work)
            case _:
                return await self._end(work)

    @property
    def tools(self) -> Tools:
        """What operations work with."""
        return Tools(self._guests, self._folders, self._disks, self._bridges, self.endpoint, self._volumes)

    def steps(self, order: VmOrder, bridges: list[BridgeSpec], percent: Percent) -> list[Step]:
        """The plan of a start. Raises MolnError for what this driver cannot make."""
        folder = self._folders.vm(order.uid)
        if order.spec.imported_as:
            return self._adoption(order, folder)
        spec = compose(order, folder, self.endpoint)
        is_saved = folder.memory.exists()
        names = tuple(bridge.name for bridge in bridges)
        claim = ClaimFolder(folder, record_of(self.tools, order, names), has_tpm=spec.devices.has_tpm)
        steps: list[Step] = [claim]
        if self.endpoint.domain_type != "test":
            fetching = self._transfer.staging(self.tools, order, percent)
            is_saved = is_saved or (bool(fetching) and order.volumes.HasField("memory"))
            plans = [*disk_plans(order, folder), *kernel_plans(order, folder)]
            steps += [*fetching, *(StageDisk(plan, self._disks, percent) for plan in plans)]
            context = order.spec.template.context
            if not context.is_disabled:
                is_kept = is_saved and folder.context_iso.exists()  # the guest has it open
                steps.append(MakeContext(folder, variables_of(order), dict(context.files), is_kept))
        if self._bridges is not None:
            steps.append(ConnectNetwork(self._bridges, bridges))
        if is_saved:
            return [*steps, RestoreGuest(self._guests, self._guests.live, folder, spec)]
        return [*steps, StartGuest(self._guests, spec)]

    def _adoption(self, order: VmOrder, folder: VmFolder) -> list[Step]:
        """Disks, network and definition of a guest that was imported are whose they were."""
        mark = Mark(order.vm_id, order.uid, order.epoch, self.endpoint.cloud_uid, is_imported=True)
        return [ClaimFolder(folder, record_of(self.tools, order, ())), AdoptGuest(self._guests, mark)]

    async def _start(self, work: Work) -> Outcome:
        if work.order is None:
            raise MolnError(Reason.INTERNAL, "a start was asked for without an order")
        folder = self._folders.vm(work.uid)
        Handover(folder).withdraw()
        folder.migrating_file(work.host_id).unlink(missing_ok=True)
        await self._saving.settle(work.uid, folder)
        bridges = bridges_of(work.order.addresses.nics) if self._bridges is not None else []
        steps = self.steps(work.order, bridges, lambda step, percent: work.progress(work, step, percent))
        outcome = await self._run(steps, bridges, work)
        if outcome is DONE:
            folder.set_halted(False)
            return replace(STARTED, facts=snapshots_told(folder))
        return outcome

    async def _run(self, steps: list[Step], bridges: list[BridgeSpec], work: Work) -> Outcome:
        if self._bridges is None:
            return await run_plan(steps, lambda step: work.progress(work, step, 0))
        async with self._bridges.held([bridge.name for bridge in bridges]):
            return await run_plan(steps, lambda step: work.progress(work, step, 0))

    async def _suspend(self, work: Work) -> Outcome:
        """The guest's memory is a file, and the guest off and no longer defined. Repeated it is a file already."""
        folder = self._folders.vm(work.uid)
        record = folder.record()
        work.progress(work, SAVE, 0)
        await self._saving.save(work.uid, folder, lambda percent: work.progress(work, SAVE, percent))
        await remove_guest(self._guests, work.uid)
        if self._bridges is not None and record is not None:
            await self._bridges.release(record.bridges)
        return DONE

    async def _end(self, work: Work) -> Outcome:
        """The guest is off afterwards, and its definition gone unless it was imported; disks stay, but for an ERASE."""
        folder = self._folders.vm(work.uid)
        record = folder.record_of(work.host_id)
        work.progress(work, STOP, 0)
        if work.deed is Deed.HALT:
            folder.set_halted(True)
        outcome = DONE
        is_asked = work.deed in (Deed.SHUT_DOWN, Deed.HALT)
        if is_asked and not await self._guests.shut_down_within(work.uid, work.grace_s):
            outcome = Outcome(True, Reason.PLUG_PULLED, f"the guest did not shut down within {work.grace_s:g} s")
        await remove_guest(self._guests, work.uid)
        if work.deed is Deed.PLUG:
            folder.drop_memory()
        if work.deed is Deed.ERASE:
            await self._guests.disown(work.uid)
            await self._erase(folder, record, work.host_id)
        if self._bridges is not None and record is not None:
            await self._bridges.release(record.bridges)
        return outcome

    async def _erase(self, folder: VmFolder, record: VmRecord | None, host_id: int) -> None:
        """On storage that hosts share, what another host owns by now is left alone."""
        owner = folder.record()
        is_own = owner is None or owner.is_of(host_id)
        if is_own and record is not None and folder.tpm_file.exists():
            await self._guests.erase_state(tpm_holder(record, self.endpoint))
        with as_reason(Reason.ERASE_FAILED):
            if is_own:
                await asyncio.to_thread(folder.erase)
            else:
                folder.arriving_file(host_id).unlink(missing_ok=True)
                folder.migrating_file(host_id).unlink(missing_ok=True)


def tpm_holder(record: VmRecord, endpoint: Endpoint) -> DomainSpec:
    """A guest of this uid with nothing but a TPM: what the hypervisor must know to remove the TPM's state."""
    mark = Mark(record.vm_id, record.uid, record.epoch, record.cloud_uid)
    name = domain_name(record.vm_id, record.uid)
    return DomainSpec(mark, name, endpoint.domain_type, MemorySpec(1), 1, devices=Devices(has_tpm=True))
