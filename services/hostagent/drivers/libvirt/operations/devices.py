"""Disks and interfaces that come and go while the guest runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.hostagent.drivers.libvirt import shape
from services.hostagent.drivers.libvirt.compose import compose, disk_plans
from services.hostagent.drivers.libvirt.live import LiveGuests
from services.hostagent.drivers.libvirt.operations import disk_snapshots
from services.hostagent.drivers.libvirt.operations.base import Op, failed
from services.hostagent.drivers.libvirt.operations.context import refresh
from services.hostagent.drivers.libvirt.steps import ClaimFolder, ConnectNetwork, StageDisk
from services.hostagent.drivers.libvirt.xml import domain_xml, parse
from services.hostagent.drivers.plans import Step
from services.hostagent.drivers.ports import DONE, Outcome
from services.hostagent.network.spec import bridges_of, tap_name
from services.hostagent.storage.disk_snapshots import DiskSnapshotBook
from services.hostagent.storage.disks import DiskPlan
from services.hostagent.storage.folders import VmRecord

UNPLUG_SECONDS = 30.0
Find = Callable[[Element], Element | None]


@dataclass(slots=True)
class PlugIn:
    """One device of a guest that runs. `find` finds it in a domain; `wanted` is the domain as composed, with it."""

    live: LiveGuests
    uid: str
    find: Find
    wanted: Element
    name: str = "plug_in"

    async def needed(self) -> bool:
        """One that is there was plugged in before the agent was killed."""
        return self.find(await self.live.describe(self.uid)) is None

    async def do(self) -> None:
        """Plugs it in."""
        device = self.find(self.wanted)
        if device is None:
            raise MolnError(Reason.INTERNAL, "the order does not hold the device that is to be plugged in")
        xml = shape.plugged(device, await self.live.describe(self.uid))
        try:
            await self.live.attach(self.uid, xml)
        except MolnError as err:
            raise failed(err.message) from err

    async def verify(self) -> bool:
        """The guest has it."""
        return not await self.needed()

    async def undo(self) -> None:
        """Takes it out again."""
        await unplug(self.live, self.uid, self.find, "the device")


async def unplug(live: LiveGuests, uid: str, find: Find, what: str) -> None:
    """The guest has it no more; not there: no effect. Raises MolnError OPERATION_FAILED, and the guest keeps it."""
    device = find(await live.describe(uid))
    if device is None:
        return
    try:
        is_gone = await live.detach(
            uid, shape.without_boot(device), lambda domain: find(domain) is not None, UNPLUG_SECONDS
        )
    except MolnError as err:
        raise failed(err.message) from err
    if not is_gone:
        message = f"the guest did not let go of {what} within {UNPLUG_SECONDS:g} s: stop using it there, and try again"
        raise failed(message)


async def attach_disk(op: Op) -> Outcome:
    """Makes the disk and plugs it in. A guest that is off gets it at its next start."""
    plan = _plan(op, op.parameters.disk_id)
    if not await op.live.runs(op.uid):
        return DONE
    steps: list[Step] = [
        StageDisk(plan, op.tools.disks, lambda step, percent: op.percent(step)(percent)),
        PlugIn(op.live, op.uid, _disk_finder(op.parameters.disk_id), _composed(op)),
    ]
    return await op.run(steps)


async def detach_disk(op: Op) -> Outcome:
    """Unplugs the disk, and erases what is on it, its snapshots too."""
    disk_id = op.parameters.disk_id
    if await op.live.runs(op.uid):
        op.work.progress(op.work, "unplug", 0)
        await unplug(op.live, op.uid, _disk_finder(disk_id), f"disk {disk_id}")
    for path in op.folder.disk_files(disk_id):
        path.unlink(missing_ok=True)
    book = DiskSnapshotBook(op.folder)
    if not any(kept.disk_id == disk_id for kept in book.all()):
        return DONE
    book.remove_disk(disk_id)
    return disk_snapshots.told(book)


async def attach_nic(op: Op) -> Outcome:
    """Makes the bridge and plugs the interface in. A guest that is off gets it at its next start."""
    address = next((nic for nic in op.order.addresses.nics if nic.nic_id == op.parameters.nic_id), None)
    if address is None:
        raise MolnError(Reason.NIC_NOT_FOUND, f"the order has no address for interface {op.parameters.nic_id}")
    if not await op.live.runs(op.uid):
        return DONE
    plug = PlugIn(op.live, op.uid, _nic_finder(op), _composed(op))
    bridges = op.tools.bridges
    if bridges is None:
        outcome = await op.run([plug])
    else:
        specs = bridges_of(op.order.addresses.nics)
        names = tuple(spec.name for spec in specs)
        record = VmRecord(
            op.order.vm_id, op.uid, op.order.epoch, op.tools.endpoint.cloud_uid, names, op.order.host_id
        )  # fmt: skip
        async with bridges.held(names):
            outcome = await op.run([ClaimFolder(op.folder, record), ConnectNetwork(bridges, specs), plug])
    if outcome.is_done:
        await refresh(op)
    return outcome


async def detach_nic(op: Op) -> Outcome:
    """Unplugs the interface; its bridge goes when nobody else is on it."""
    record = op.folder.record_of(op.work.host_id)
    if await op.live.runs(op.uid):
        op.work.progress(op.work, "unplug", 0)
        await unplug(op.live, op.uid, _nic_finder(op), f"interface {op.parameters.nic_id}")
        await refresh(op)
    if op.tools.bridges is not None and record is not None:
        await op.tools.bridges.release(record.bridges)
    return DONE


def _plan(op: Op, disk_id: int) -> DiskPlan:
    """The disk's plan. Raises MolnError where the order lacks it, or where its image's volume is not given yet."""
    for plan in disk_plans(op.order, op.folder):
        if plan.template.disk_id == disk_id:
            if plan.template.image_id and not plan.volume.image_id:
                raise MolnError(Reason.IMAGE_NOT_READY, f"the image of disk {disk_id} is not ready on its datastore")
            return plan
    raise MolnError(Reason.DISK_NOT_FOUND, f"the order has no disk {disk_id}")


def _composed(op: Op) -> Element:
    return parse(domain_xml(compose(op.order, op.folder, op.tools.endpoint)))


def _disk_finder(disk_id: int) -> Find:
    return lambda domain: shape.find_disk(domain, disk_id)


def _nic_finder(op: Op) -> Find:
    nic_id = op.parameters.nic_id
    mac = next((nic.mac for nic in op.order.addresses.nics if nic.nic_id == nic_id), "")
    device = tap_name(op.uid, nic_id)
    return lambda domain: shape.find_nic(domain, device=device, mac=mac)
