"""What each deed amounts to on a real hypervisor: a start is a plan of steps, an end takes everything down in order.

Each deed is idempotent, also after a crash of the agent in the middle. Must not decide when a deed is due.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from moln.image.v1.image_pb2 import Datastore
from moln.node.v1.node_service_pb2 import VmOrder
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.hostagent.context import variables_of
from services.hostagent.drivers.libvirt.compose import Endpoint, compose, disk_plans, domain_name, kernel_plans
from services.hostagent.drivers.libvirt.guests import Guests
from services.hostagent.drivers.libvirt.spec import Devices, DomainSpec, Mark, MemorySpec
from services.hostagent.drivers.libvirt.steps import (
    ClaimFolder,
    ConnectNetwork,
    MakeContext,
    Percent,
    StageDisk,
    StartGuest,
    as_reason,
    remove_guest,
)
from services.hostagent.drivers.plans import Step, failure, run_plan
from services.hostagent.drivers.ports import DONE, Deed, Outcome, Work
from services.hostagent.network.bridges import Bridges
from services.hostagent.network.spec import BridgeSpec, bridges_of
from services.hostagent.storage.disks import DiskMaker
from services.hostagent.storage.folders import NodeFolders, VmRecord

PREPARE, STOP = "prepare", "stop_guest"


class GuestWork:
    """Does deeds. `endpoint` is set before the first start; with `bridges` None nothing is done to the network."""

    def __init__(self, guests: Guests, folders: NodeFolders, disks: DiskMaker, bridges: Bridges | None) -> None:
        self._guests, self._folders, self._disks, self._bridges = guests, folders, disks, bridges
        self.endpoint = Endpoint("", "qemu", "")

    def see(self, datastores: Sequence[Datastore]) -> None:
        """These datastores exist; whether the node sees their files is found out when needed."""
        self._disks.datastores = datastores

    async def perform(self, work: Work) -> Outcome:
        """Does the deed to its end. Failures come back as an outcome with the step."""
        try:
            return await (self._start(work) if work.deed is Deed.START else self._end(work))
        except (MolnError, OSError) as err:
            return failure(PREPARE if work.deed is Deed.START else STOP, err)

    def steps(self, order: VmOrder, bridges: list[BridgeSpec], percent: Percent) -> list[Step]:
        """The plan of a start. Raises MolnError for what this driver cannot make."""
        folder = self._folders.vm(order.uid)
        spec = compose(order, folder, self.endpoint)
        names = tuple(bridge.name for bridge in bridges)
        record = VmRecord(order.vm_id, order.uid, order.epoch, self.endpoint.cloud_uid, names)
        steps: list[Step] = [ClaimFolder(folder, record, has_tpm=spec.devices.has_tpm)]
        if self.endpoint.domain_type != "test":
            plans = [*disk_plans(order, folder), *kernel_plans(order, folder)]
            steps += [StageDisk(plan, self._disks, percent) for plan in plans]
            context = order.spec.template.context
            if not context.is_disabled:
                steps.append(MakeContext(folder, variables_of(order), dict(context.files)))
        if self._bridges is not None:
            steps.append(ConnectNetwork(self._bridges, bridges))
        return [*steps, StartGuest(self._guests, spec)]

    async def _start(self, work: Work) -> Outcome:
        if work.order is None:
            raise MolnError(Reason.INTERNAL, "a start was asked for without an order")
        bridges = bridges_of(work.order.addresses.nics) if self._bridges is not None else []
        steps = self.steps(work.order, bridges, lambda step, percent: work.progress(work, step, percent))
        outcome = await self._run(steps, bridges, work)
        if outcome is DONE:
            self._folders.vm(work.uid).set_halted(False)
        return outcome

    async def _run(self, steps: list[Step], bridges: list[BridgeSpec], work: Work) -> Outcome:
        if self._bridges is None:
            return await run_plan(steps, lambda step: work.progress(work, step, 0))
        async with self._bridges.held([bridge.name for bridge in bridges]):
            return await run_plan(steps, lambda step: work.progress(work, step, 0))

    async def _end(self, work: Work) -> Outcome:
        """The guest is off afterwards and no longer defined; its disks stay, but for an ERASE."""
        folder = self._folders.vm(work.uid)
        record = folder.record()
        work.progress(work, STOP, 0)
        if work.deed is Deed.HALT:
            folder.set_halted(True)
        outcome = DONE
        is_asked = work.deed in (Deed.SHUT_DOWN, Deed.HALT)
        if is_asked and not await self._guests.shut_down_within(work.uid, work.grace_s):
            outcome = Outcome(True, Reason.PLUG_PULLED, f"the guest did not shut down within {work.grace_s:g} s")
        await remove_guest(self._guests, work.uid)
        if work.deed is Deed.ERASE:
            if folder.tpm_file.exists() and record is not None:
                await self._guests.erase_state(tpm_holder(record, self.endpoint))
            with as_reason(Reason.ERASE_FAILED):
                await asyncio.to_thread(folder.erase)
        if self._bridges is not None and record is not None:
            await self._bridges.release(record.bridges)
        return outcome


def tpm_holder(record: VmRecord, endpoint: Endpoint) -> DomainSpec:
    """A guest of this uid with nothing but a TPM: what the hypervisor must know to remove the TPM's state."""
    mark = Mark(record.vm_id, record.uid, record.epoch, record.cloud_uid)
    name = domain_name(record.vm_id, record.uid)
    return DomainSpec(mark, name, endpoint.domain_type, MemorySpec(1), 1, devices=Devices(has_tpm=True))
