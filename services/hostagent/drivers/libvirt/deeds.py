"""What is done with a guest on a real hypervisor, step by step. A start that fails undoes what it has made.

Each deed is idempotent, also after a crash of the agent in the middle. Must not decide when a deed is due.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from moln.image.v1.image_pb2 import Datastore
from moln.node.v1.node_service_pb2 import VmOrder
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.hostagent.context import build_iso, variables_of
from services.hostagent.drivers.libvirt.compose import Endpoint, compose, disk_plans
from services.hostagent.drivers.libvirt.guests import Guests
from services.hostagent.drivers.ports import DONE, Deed, Outcome, Work
from services.hostagent.network.bridges import Bridges
from services.hostagent.network.spec import BridgeSpec, bridges_of
from services.hostagent.storage.disks import DiskMaker, DiskPlan
from services.hostagent.storage.folders import NodeFolders, VmFolder, VmRecord

STAGE, NETWORK, CONTEXT, START = "stage_disks", "connect_network", "make_context", "start_guest"
STOP, ERASE = "stop_guest", "erase"

Step = Callable[[str, int], None]


class Deeds:
    """Does deeds. `endpoint` is set before the first start; with `bridges` None nothing is done to the network."""

    def __init__(self, guests: Guests, folders: NodeFolders, disks: DiskMaker, bridges: Bridges | None) -> None:
        self._guests, self._folders, self._disks, self._bridges = guests, folders, disks, bridges
        self.endpoint = Endpoint("", "qemu", "")

    def see(self, datastores: Sequence[Datastore]) -> None:
        """These datastores exist; whether the node sees their files is found out when needed."""
        self._disks.datastores = datastores

    async def do(self, work: Work) -> Outcome:
        """Does the deed to its end. Failures come back as an outcome with the step; only cancellation is raised."""
        current = [work.deed.value]

        def step(name: str, percent: int) -> None:
            current[0] = name
            work.progress(work, name, percent)

        try:
            if work.deed is Deed.START:
                return await self._start(_order_of(work), step)
            return await self._end(work, step)
        except MolnError as err:
            return Outcome(False, err.reason, err.message, current[0])
        except OSError as err:
            message = f"{err.filename or 'the node'}: {err.strerror or err}"
            return Outcome(False, _REASON_OF_STEP.get(current[0], Reason.INTERNAL), message, current[0])

    async def _start(self, order: VmOrder, step: Step) -> Outcome:
        folder = self._folders.vm(order.uid)
        spec = compose(order, folder, self.endpoint)
        bridges = bridges_of(order.addresses.nics) if self.endpoint.has_bridges else []
        async with AsyncExitStack() as undo:
            self._claim_folder(order, folder, [bridge.name for bridge in bridges], undo)
            if self.endpoint.domain_type != "test":
                await self._stage(disk_plans(order, folder), step, undo)
                step(CONTEXT, 0)
                await self._make_context(order, folder)
            step(NETWORK, 0)
            async with self._connected(bridges):
                step(START, 0)
                undo.push_async_callback(self._guests.undefine, order.uid)
                undo.push_async_callback(self._guests.destroy, order.uid)
                await _whole(self._guests.start(spec))
            undo.pop_all()
        folder.set_halted(False)
        return DONE

    def _claim_folder(self, order: VmOrder, folder: VmFolder, bridges: list[str], undo: AsyncExitStack) -> None:
        """From here on something of the VM is on this node, and a restarted agent finds it."""
        is_new = not folder.path.exists()
        folder.make(VmRecord(order.vm_id, order.uid, order.epoch, self.endpoint.cloud_uid, tuple(bridges)))
        if is_new:
            undo.callback(folder.erase)

    async def _stage(self, plans: list[DiskPlan], step: Step, undo: AsyncExitStack) -> None:
        for number, plan in enumerate(plans):
            begun, share = number * 100 // len(plans), len(plans)

            def progress(percent: int, begun: int = begun, share: int = share) -> None:
                step(STAGE, begun + percent // share)

            progress(0)
            if await self._disks.make(plan, progress):
                undo.callback(plan.path.unlink, missing_ok=True)

    async def _make_context(self, order: VmOrder, folder: VmFolder) -> None:
        context = order.spec.template.context
        if not context.is_disabled:
            await build_iso(folder.context_iso, variables_of(order), dict(context.files))

    @asynccontextmanager
    async def _connected(self, bridges: list[BridgeSpec]) -> AsyncIterator[None]:
        if self._bridges is None:
            yield
            return
        async with self._bridges.held(bridges):
            yield

    async def _end(self, work: Work, step: Step) -> Outcome:
        """The guest is off afterwards and no longer defined; its disks stay, but for an ERASE."""
        folder = self._folders.vm(work.uid)
        record = folder.record()
        outcome = DONE
        step(STOP, 0)
        if work.deed is Deed.HALT:
            folder.set_halted(True)
        is_asked = work.deed in (Deed.SHUT_DOWN, Deed.HALT)
        if is_asked and not await self._guests.shut_down_within(work.uid, work.grace_s):
            message = f"the guest did not shut down within {work.grace_s:g} s"
            outcome = Outcome(True, Reason.PLUG_PULLED, message)
        await _whole(self._remove_guest(work.uid))
        if work.deed is Deed.ERASE:
            step(ERASE, 0)
            await asyncio.to_thread(folder.erase)
        if self._bridges is not None and record is not None:
            await self._bridges.release(record.bridges)
        return outcome

    async def _remove_guest(self, uid: str) -> None:
        await self._guests.destroy(uid)
        await self._guests.undefine(uid)


async def _whole(work: Coroutine[Any, Any, None]) -> None:
    """Runs to its end even when cancelled, which then comes after it: a hypervisor cannot be stopped half-way."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _order_of(work: Work) -> VmOrder:
    if work.order is None:
        raise MolnError(Reason.INTERNAL, "a start was asked for without an order")
    return work.order


_REASON_OF_STEP = {
    STAGE: Reason.STAGING_FAILED,
    NETWORK: Reason.NETWORK_FAILED,
    CONTEXT: Reason.CONTEXT_FAILED,
    START: Reason.START_FAILED,
    STOP: Reason.HYPERVISOR_FAILED,
    ERASE: Reason.ERASE_FAILED,
}
