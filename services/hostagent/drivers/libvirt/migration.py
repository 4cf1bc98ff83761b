"""Live migration: the target gets ready, the source's hypervisor hands the running guest over, peer to peer.

The hypervisors do it; the agent tells them to, watches, and finds out what became of it when it was not there. While it
is not certain, a guest counts as running at the source. Must not decide who moves, nor where to.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree.ElementTree import Element

from moln.compute.v1 import vm_pb2
from moln.node.v1.node_service_pb2 import MoveOrder, VmOrder
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.obs.logs import get_logger
from services.hostagent.context import variables_of
from services.hostagent.drivers.libvirt import shape
from services.hostagent.drivers.libvirt.compose import disk_plans, kernel_plans
from services.hostagent.drivers.libvirt.connection import LiveFlags, MigrateParameters
from services.hostagent.drivers.libvirt.convergence import Convergence, percent_of
from services.hostagent.drivers.libvirt.live import LOOK_SECONDS, LiveGuests
from services.hostagent.drivers.libvirt.operations.base import Tools
from services.hostagent.drivers.libvirt.spec import Mark
from services.hostagent.drivers.libvirt.steps import (
    ClaimFolder,
    ConnectNetwork,
    MakeContext,
    StageDisk,
    as_reason,
    remove_guest,
)
from services.hostagent.drivers.libvirt.transfer import record_of
from services.hostagent.drivers.plans import Step, run_plan
from services.hostagent.drivers.ports import Outcome, Work
from services.hostagent.network.spec import BridgeSpec, bridges_of
from services.hostagent.storage import qemu_img
from services.hostagent.storage.disk_snapshots import DiskSnapshotBook, snapshots_told
from services.hostagent.storage.disks import MIB, DiskMaker, DiskPlan
from services.hostagent.storage.folders import VmFolder, VmRecord
from services.hostagent.storage.snapshots import SnapshotBook

SHARED, FOLDER = "shared_storage", "folder"
"""Results of a target: whether it sees the source's own disks, and where it has those of the VM."""
STEP = "migrate"
PATIENCE_SECONDS = 30.0


@dataclass(slots=True)
class ExpectGuest:
    """On storage that both hosts share: the folder stays the source's until the guest has arrived."""

    folder: VmFolder
    record: VmRecord
    name: str = "claim_folder"

    async def needed(self) -> bool:
        """Whether it is not noted yet, or for another placement."""
        return self.folder.arriving(self.record.host_id) != self.record

    async def do(self) -> None:
        """Notes it beside the source's record."""
        self.folder.expect(self.record)

    async def verify(self) -> bool:
        """It can be read back."""
        return not await self.needed()

    async def undo(self) -> None:
        """Takes the note back; nothing else there is the target's."""
        self.folder.arriving_file(self.record.host_id).unlink(missing_ok=True)


@dataclass(slots=True)
class StageEmpty:
    """A disk that the source's hypervisor fills: as large and of the same format; on the image that both have."""

    plan: DiskPlan
    maker: DiskMaker
    name: str = "stage_disks"

    async def needed(self) -> bool:
        """One that is there was made before the agent was killed; its content is sent anew anyway."""
        return not self.plan.path.exists()

    async def do(self) -> None:
        """Makes it."""
        plan = self.plan
        is_overlay = bool(plan.volume.image_id) and plan.format == "qcow2"
        with as_reason(Reason.STAGING_FAILED):
            if is_overlay or plan.template.is_read_only:
                await self.maker.make(plan, lambda _percent: None)
            else:
                size = max(plan.template.size_mib * MIB, plan.volume.virtual_size_bytes)
                await qemu_img.create_blank(plan.path, plan.format, size)

    async def verify(self) -> bool:
        """It is there."""
        return self.plan.path.exists()

    async def undo(self) -> None:
        """Removes it."""
        self.plan.path.unlink(missing_ok=True)


class Migration:
    """Both sides of it. `patience_s` is allowed to every migration before it counts as one that does not converge."""

    def __init__(self, patience_s: float = PATIENCE_SECONDS) -> None:
        self._patience_s = patience_s
        self._log = get_logger("migration")

    # The target

    async def receive(self, tools: Tools, work: Work) -> Outcome:
        """Folder, network and, where the disks are copied, empty disks. Nothing starts. A failure leaves nothing."""
        order = _order(work)
        folder = tools.folders.vm(order.uid)
        bridges = bridges_of(order.addresses.nics) if tools.bridges is not None else []
        is_shared = _is_shared(folder, order)
        folder.migrating_file(work.host_id).unlink(missing_ok=True)
        steps = self.receiving(tools, order, bridges, is_shared=is_shared)
        outcome = await run_plan(steps, lambda step: work.progress(work, step, 0))
        if not outcome.is_done:
            return outcome
        results = {SHARED: "yes" if is_shared else "no", FOLDER: str(folder.path.absolute())}
        return Outcome(True, results=results, facts=snapshots_told(folder) if is_shared else None)

    def receiving(self, tools: Tools, order: VmOrder, bridges: list[BridgeSpec], *, is_shared: bool) -> list[Step]:
        """The plan of a target."""
        folder = tools.folders.vm(order.uid)
        record = record_of(tools, order, tuple(bridge.name for bridge in bridges))
        steps: list[Step] = [ExpectGuest(folder, record) if is_shared else ClaimFolder(folder, record)]
        if order.move.move.how != vm_pb2.MOVE_MODE_LIVE:
            return steps
        if not is_shared:
            steps += [StageEmpty(plan, tools.disks) for plan in disk_plans(order, folder)]
            steps += [StageDisk(plan, tools.disks, lambda _s, _p: None) for plan in kernel_plans(order, folder)]
            context = order.spec.template.context
            if not context.is_disabled:
                steps.append(MakeContext(folder, variables_of(order), dict(context.files)))
        if tools.bridges is not None:
            steps.append(ConnectNetwork(tools.bridges, bridges))
        return steps

    # The source

    async def migrate(self, tools: Tools, work: Work) -> Outcome:
        """Done: the guest runs there and is not here. Failed: it runs here. Begun again it finds out which."""
        order, live = _order(work), tools.guests.live
        folder = tools.folders.vm(work.uid)
        marker = folder.migrating_file(work.host_id)
        is_again = marker.exists() and marker.read_text() == order.move.move.move_id
        if is_again:
            await live.job_ends(work.uid)
        if await _has_left(live, work.uid, is_again=is_again):
            return await self._handed_over(tools, work)
        if not await live.runs(work.uid):
            raise MolnError(Reason.MIGRATION_FAILED, "the guest does not run here, and was not handed over")
        if is_again:
            marker.unlink(missing_ok=True)
            raise MolnError(Reason.MIGRATION_FAILED, "the migration was cut off with the agent; the guest runs here")
        self._check(folder, order)
        marker.write_text(order.move.move.move_id)
        try:
            await self._hand(tools, work)
        except asyncio.CancelledError:
            if not await _has_left(live, work.uid, is_again=True):
                marker.unlink(missing_ok=True)
                raise
        except MolnError as err:
            if not await _has_left(live, work.uid, is_again=True):
                marker.unlink(missing_ok=True)
                raise
            self._log.warning("handed over in spite of an error", vm_id=work.vm_id, error=err.message)
        return await self._handed_over(tools, work)

    def _check(self, folder: VmFolder, order: VmOrder) -> None:
        move = order.move
        if not move.peer_migration_uri:
            message = f"host {move.peer_name or move.peer_host_id} takes no migrations: set migration_uri in its agent"
            raise MolnError(Reason.MIGRATION_FAILED, message)
        if FOLDER not in move.peer_status.move.results:
            raise MolnError(Reason.MIGRATION_FAILED, "the target has not said where it has the VM's folder")
        if not _shares(move) and (SnapshotBook(folder).all() or DiskSnapshotBook(folder).all()):
            message = "the VM has snapshots, which a live copy of its disks leaves behind: delete them, or move it cold"
            raise MolnError(Reason.MIGRATION_FAILED, message)

    async def _hand(self, tools: Tools, work: Work) -> None:
        order, live = _order(work), tools.guests.live
        move = order.move
        watch = _Watch(live, work, Convergence(self._patience_s, move.move.bandwidth_mib_per_s))
        parameters = await self._parameters(tools, work)
        uri = move.peer_migration_uri.partition("#")[0]
        flags = LiveFlags.MIGRATE
        if not _shares(move):
            flags |= LiveFlags.MIGRATE_COPY_DISKS
        else:
            flags |= LiveFlags.MIGRATE_UNSAFE  # the target has shown that it sees the very same files
        if move.move.on_stall == vm_pb2.MOVE_STALL_POSTCOPY:
            flags |= LiveFlags.MIGRATE_POSTCOPY
        try:
            await live.migrate(work.uid, uri, parameters, flags, watch.run)
        except MolnError as err:
            if watch.has_given_up:
                message = f"the guest changes its memory faster than it can be sent: {err.message}"
                raise MolnError(Reason.MIGRATION_STALLED, message) from err
            raise MolnError(Reason.MIGRATION_FAILED, err.message) from err

    async def _parameters(self, tools: Tools, work: Work) -> dict[str, object]:
        order, live = _order(work), tools.guests.live
        move, here = order.move, tools.folders.vm(work.uid).path
        there = Path(move.peer_status.move.results[FOLDER])
        mark = Mark(order.vm_id, order.uid, move.move.epoch, tools.endpoint.cloud_uid)
        bridges = [(nic.mac.lower(), nic.bridge) for nic in order.addresses.nics]
        running, defined = await live.migratable(work.uid)
        parameters: dict[str, object] = {
            MigrateParameters.DEST_XML: shape.adapted(running, mark, here=here, there=there, bridges=bridges),
            MigrateParameters.PERSIST_XML: shape.adapted(defined, mark, here=here, there=there, bridges=bridges),
        }
        parameters.update(_addresses(move.peer_migration_uri))
        if move.move.bandwidth_mib_per_s:
            parameters[MigrateParameters.BANDWIDTH] = move.move.bandwidth_mib_per_s
        if not _shares(move):
            parameters[MigrateParameters.DISKS] = _copied(await live.describe(work.uid))
        return parameters

    async def _handed_over(self, tools: Tools, work: Work) -> Outcome:
        """Nothing of the guest stays here but what an erase removes; on shared storage the folder is the target's.

        The marker stays as well: this deed begun once more finds the same.
        """
        order = _order(work)
        folder = tools.folders.vm(work.uid)
        record = folder.record()
        await remove_guest(tools.guests, work.uid)
        if record is not None and _shares(order.move) and record.is_of(work.host_id):
            folder.make(replace(record, host_id=order.move.peer_host_id, epoch=order.move.move.epoch))
        if tools.bridges is not None and record is not None:
            await tools.bridges.release(record.bridges)
        return Outcome(True)


class _Watch:
    """Looks at a migration under way: tells how far it is, and does what is wanted with one that does not converge."""

    def __init__(self, live: LiveGuests, work: Work, convergence: Convergence) -> None:
        self._live, self._work, self._convergence = live, work, convergence
        self.has_given_up = False
        self._has_acted = False

    async def run(self) -> None:
        """Until cancelled."""
        clock = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            job = await self._live.job(self._work.uid)
            if job is None:
                continue
            self._work.progress(self._work, STEP, percent_of(job))
            if not self._has_acted and self._convergence.is_stalled(job, clock.time()):
                self._has_acted = True
                await self._act()

    async def _act(self) -> None:
        order, uid = _order(self._work), self._work.uid
        with contextlib.suppress(MolnError):  # it may have ended just now
            match order.move.move.on_stall:
                case vm_pb2.MOVE_STALL_PAUSE:
                    await self._live.pause(uid)
                case vm_pb2.MOVE_STALL_POSTCOPY:
                    await self._live.go_on_there(uid)
                case _:
                    self.has_given_up = True
                    await self._live.abort(uid)


async def _has_left(live: LiveGuests, uid: str, *, is_again: bool) -> bool:
    """Whether the guest was handed over: the hypervisor says so, or has forgotten it as it was told to then."""
    state, reason = await live.state(uid)
    return (state, reason) == LiveFlags.OFF_MIGRATED or (state == 0 and is_again)


def _is_shared(folder: VmFolder, order: VmOrder) -> bool:
    """The target sees the source's folder, with the source's own word in it: then both see the same files."""
    record = folder.record()
    return record is not None and record.host_id == order.move.peer_host_id and record.uid == order.uid


def _shares(move: MoveOrder) -> bool:
    return move.peer_status.move.results.get(SHARED) == "yes"


def _copied(domain: Element) -> list[str]:
    """The disks whose content is sent: what cannot be written is there already."""
    return [
        shape.target_of(disk)
        for disk in domain.iterfind("devices/disk")
        if disk.get("device") == "disk" and disk.find("readonly") is None
    ]


def _addresses(migration_uri: str) -> dict[str, object]:
    """Where memory and disks are sent: what stands behind `#`, or else the URI's own host."""
    uri, _, stated = migration_uri.partition("#")
    host = urlsplit(stated or uri).hostname or ""
    if not host:
        return {}
    shown = f"[{host}]" if ":" in host else host
    found: dict[str, object] = {MigrateParameters.URI: stated or f"tcp://{shown}"}
    with contextlib.suppress(ValueError):
        found[MigrateParameters.LISTEN_ADDRESS] = str(ipaddress.ip_address(host))
    return found


def _order(work: Work) -> VmOrder:
    if work.order is None:
        raise MolnError(Reason.INTERNAL, f"a {work.deed.value} was asked for without an order")
    return work.order
