"""A VM's files on their way: to the datastore and back, to another node. What each deed sends and fetches.

The guest is off meanwhile. Must not decide when: that is the order's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

from moln.compute.v1.vm_pb2 import SavedFile, VmStatus
from moln.image.v1.image_data_service_pb2 import DownloadVolumeRequest, UploadVolumeRequest
from moln.node.v1.node_service_pb2 import FetchFileRequest, VmOrder
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.hostagent.drivers.libvirt.compose import disk_plans
from services.hostagent.drivers.libvirt.operations.base import Tools
from services.hostagent.drivers.libvirt.saving import Saving
from services.hostagent.drivers.libvirt.steps import ClaimFolder, Percent, as_reason
from services.hostagent.drivers.libvirt.transfer_steps import (
    FetchFile,
    FindDiskSnapshots,
    FindSnapshots,
    NoteStaged,
    RebaseDisk,
    is_staged,
)
from services.hostagent.drivers.plans import Step, run_plan
from services.hostagent.drivers.ports import Outcome, Work
from services.hostagent.storage.checksums import sha256_of
from services.hostagent.storage.copies import percents
from services.hostagent.storage.disk_snapshots import snapshots_told
from services.hostagent.storage.folders import VmFolder, VmRecord
from services.hostagent.storage.handover import Handover
from services.hostagent.storage.volumes import VolumeStore

UPLOAD, CHECKSUMS = "upload", "checksums"


class Transfer:
    """Sends and fetches the files of VMs whose guests are off."""

    def __init__(self, saving: Saving, store: VolumeStore) -> None:
        self._saving, self._store = saving, store

    async def upload(self, tools: Tools, work: Work) -> Outcome:
        """Brings disks and saved memory to the datastore. Repeated, all is brought again: what is there is replaced."""
        order = _order(work)
        if not order.datastore.address:
            raise MolnError(Reason.UPLOAD_FAILED, "the order holds no leave to bring disks to a datastore")
        saved = []
        for path, file in await self._files(tools, work):
            first = UploadVolumeRequest(vm_id=work.vm_id, uid=work.uid, file=file, epoch=order.epoch)
            heard = percents(file.size_bytes, partial(work.progress, work, UPLOAD))
            with as_reason(Reason.UPLOAD_FAILED):
                saved.append(await self._store.upload(order.datastore, first, path, heard))
        return Outcome(True, facts=VmStatus(saved=saved), cleared=("saved",))

    async def hand_over(self, tools: Tools, work: Work) -> Outcome:
        """Names the files with their checksums, and hands them out to whoever shows the ticket of the move."""
        order, folder = _order(work), tools.folders.vm(work.uid)
        saved = []
        for path, file in await self._files(tools, work):
            heard = percents(file.size_bytes, partial(work.progress, work, CHECKSUMS))
            with as_reason(Reason.TRANSFER_FAILED):
                file.sha256, file.size_bytes = await sha256_of(path, heard)
            saved.append(file)
        Handover(folder).offer(order.move.ticket, saved)
        return Outcome(True, facts=VmStatus(saved=saved), cleared=("saved",))

    async def _files(self, tools: Tools, work: Work) -> list[tuple[Path, SavedFile]]:
        folder, order = tools.folders.vm(work.uid), _order(work)
        await self._saving.settle(work.uid, folder)
        if folder.tpm_file.exists():
            raise MolnError(Reason.CAPABILITY, "the state of the guest's TPM cannot leave the node")
        if await tools.guests.live.runs(work.uid):
            raise MolnError(Reason.STATE_FORBIDS, "the guest runs: its disks would change under the copy")
        found = []
        for disk in order.spec.template.disks:
            for path in folder.disk_files(disk.disk_id):
                found.append((path, SavedFile(disk_id=disk.disk_id, format=path.suffix.lstrip("."))))
        if folder.memory.exists():
            found.append((folder.memory, SavedFile(is_memory=True, format="memory")))
        for path, file in found:
            file.size_bytes = path.stat().st_size
        return found

    async def fetch(self, tools: Tools, work: Work) -> Outcome:
        """Fetches from the other node what it has named. A failure leaves nothing; repeated it does what is missing."""
        order = _order(work)
        folder = tools.folders.vm(order.uid)
        claim = ClaimFolder(folder, record_of(tools, order))
        steps = [claim, *self.fetching(tools, order, partial(work.progress, work))]
        outcome = await run_plan(steps, lambda step: work.progress(work, step, 0))
        if not outcome.is_done:
            return outcome
        folder.arriving_file(order.host_id).unlink(missing_ok=True)
        return Outcome(True, facts=snapshots_told(folder))

    def fetching(self, tools: Tools, order: VmOrder, percent: Percent) -> list[Step]:
        """The steps that fetch from the other node what it has named."""
        folder, move = tools.folders.vm(order.uid), order.move
        plans = {plan.template.disk_id: plan for plan in disk_plans(order, folder)}
        steps: list[Step] = []
        paths = []
        for file in move.peer_status.saved:
            path = _path(folder, file)
            steps.append(FetchFile(path, file, partial(self._from_node, order, file), percent))
            if not file.is_memory and file.disk_id in plans:
                steps.append(RebaseDisk(plans[file.disk_id], path, tools.disks))
                paths += [path] if file.format == "qcow2" else []
        return [*steps, FindSnapshots(folder, paths), FindDiskSnapshots(folder, paths)]

    def staging(self, tools: Tools, order: VmOrder, percent: Percent) -> list[Step]:
        """The steps that fetch a VM's files from the datastore; none where they have been, or are not there."""
        folder, volumes = tools.folders.vm(order.uid), order.volumes
        if not volumes.is_in_datastore or is_staged(folder, volumes.saved_epoch) or _is_of_here(folder, order):
            return []
        plans = {plan.template.disk_id: plan for plan in disk_plans(order, folder)}
        steps: list[Step] = []
        paths: list[Path] = []
        for volume in volumes.disks:
            plan = plans.get(volume.disk_id)
            if not volume.saved_sha256 or plan is None:
                continue
            wanted = SavedFile(
                disk_id=volume.disk_id, sha256=volume.saved_sha256, size_bytes=volume.saved_size_bytes,
                format=plan.format,
            )  # fmt: skip
            steps.append(self._from_datastore(order, plan.path, wanted, percent))
            steps.append(RebaseDisk(plan, plan.path, tools.disks))
            paths += [plan.path] if plan.format == "qcow2" else []
        if volumes.HasField("memory"):
            steps.append(self._from_datastore(order, folder.memory, volumes.memory, percent))
        steps += [FindSnapshots(folder, paths), FindDiskSnapshots(folder, paths)]
        return [*steps, NoteStaged(folder, volumes.saved_epoch)]

    def _from_datastore(self, order: VmOrder, target: Path, wanted: SavedFile, percent: Percent) -> FetchFile:
        async def open(offset: int) -> AsyncIterator[bytes]:
            request = DownloadVolumeRequest(
                vm_id=order.vm_id, uid=order.uid, disk_id=wanted.disk_id, is_memory=wanted.is_memory, offset=offset
            )
            async for piece in self._store.download(order.datastore, request):
                yield piece

        return FetchFile(target, wanted, open, percent, name="stage_disks")

    async def _from_node(self, order: VmOrder, file: SavedFile, offset: int) -> AsyncIterator[bytes]:
        move = order.move
        if not move.peer_data_address:
            message = f"host {move.peer_name or move.peer_host_id} has no data port: set data_listen in its agent"
            raise MolnError(Reason.TRANSFER_FAILED, message)
        request = FetchFileRequest(
            vm_id=order.vm_id, uid=order.uid, disk_id=file.disk_id, is_memory=file.is_memory, offset=offset
        )
        async for piece in self._store.fetch(move.peer_data_address, move.ticket, request):
            yield piece


def record_of(tools: Tools, order: VmOrder, bridges: tuple[str, ...] = ()) -> VmRecord:
    """What is written down of a VM that this node takes over."""
    return VmRecord(order.vm_id, order.uid, order.epoch, tools.endpoint.cloud_uid, bridges, order.host_id)


def _path(folder: VmFolder, file: SavedFile) -> Path:
    if file.is_memory:
        return folder.memory
    if file.format not in ("qcow2", "raw"):
        raise MolnError(Reason.TRANSFER_FAILED, f"disk {file.disk_id} has the format {file.format!r}: it is not known")
    return folder.disk(file.disk_id, file.format)


def _is_of_here(folder: VmFolder, order: VmOrder) -> bool:
    """Whether this node brought them there itself, and has them still: what is here is the same, or newer."""
    record = folder.record()
    return record is not None and record.epoch == order.volumes.saved_epoch


def _order(work: Work) -> VmOrder:
    if work.order is None:
        raise MolnError(Reason.INTERNAL, f"a {work.deed.value} was asked for without an order")
    return work.order


__all__ = ["Transfer", "record_of"]
