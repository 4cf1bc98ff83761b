"""Makes a VM's disks: an overlay on the image where that is, a whole copy, or an empty disk. Idempotent.

A disk that is there is the guest's and is never made anew. Must not know hypervisors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from moln.compute.v1.template_pb2 import DiskTemplate
from moln.compute.v1.vm_pb2 import Volume
from moln.image.v1.image_pb2 import Datastore
from moln.node.v1.node_service_pb2 import ImageTicket
from services.common.domain.reasons import Reason
from services.common.exec.program import CommandError, Limits, run_program
from services.hostagent.storage import qemu_img
from services.hostagent.storage.cache import Chunks, ImageCache
from services.hostagent.storage.qemu_img import StorageError

MIB = 1024 * 1024
MARK_FILE = ".moln-datastore"
_FILESYSTEMS = {"ext4": ("mke2fs", "-q", "-F", "-t", "ext4"), "xfs": ("mkfs.xfs", "-q", "-f"), "swap": ("mkswap",)}
_MAKE_LIMITS = Limits(seconds=300.0)

Fetch = Callable[[ImageTicket], Chunks]
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class DiskPlan:
    """One disk: what its owner asked for, where it comes from, and the file that it becomes."""

    template: DiskTemplate
    volume: Volume
    path: Path
    format: str
    ticket: ImageTicket | None = None


class DiskMaker:
    """Makes disks from what the node sees itself, or from what it fetches."""

    def __init__(self, cache: ImageCache, fetch: Fetch) -> None:
        self._cache, self._fetch = cache, fetch
        self.datastores: Sequence[Datastore] = ()

    async def make(self, plan: DiskPlan, progress: Progress) -> bool:
        """True where the disk was made now, False where it was there. Raises StorageError; nothing half-made stays."""
        if plan.path.exists():
            return False
        fresh = plan.path.with_name(plan.path.name + ".new")
        fresh.unlink(missing_ok=True)
        try:
            await self._fill(plan, fresh, progress)
            fresh.replace(plan.path)
        finally:
            fresh.unlink(missing_ok=True)
        return True

    async def _fill(self, plan: DiskPlan, target: Path, progress: Progress) -> None:
        if plan.volume.image_id:
            await self._from_image(plan, target, progress)
        elif plan.template.filesystem in ("", "none"):
            await qemu_img.create_blank(target, plan.format, plan.template.size_mib * MIB)
        else:
            await _formatted(plan, target)

    async def _from_image(self, plan: DiskPlan, target: Path, progress: Progress) -> None:
        volume = plan.volume
        base = await self.base(plan, progress)
        wanted = plan.template.size_mib * MIB
        size = wanted if wanted >= volume.virtual_size_bytes else 0
        if plan.format == "qcow2" and not plan.template.is_read_only:
            await qemu_img.create_overlay(target, base, volume.source_format, size)
            return
        await qemu_img.convert(base, volume.source_format, target, plan.format)
        if size:
            await qemu_img.enlarge(target, plan.format, size)

    async def base(self, plan: DiskPlan, progress: Progress) -> Path:
        """The image's file: in its datastore where the node sees that, otherwise in the cache."""
        volume, ticket = plan.volume, plan.ticket
        source = Path(volume.source)
        if self.sees(volume.datastore_id):
            if not source.is_file():
                raise StorageError(Reason.IMAGE_VANISHED, f"the image's file {source} is gone from its datastore")
            return source
        if ticket is None:
            message = f"the node does not see the datastore of image {volume.image_id} and has no leave to fetch it"
            raise StorageError(Reason.STAGING_FAILED, message)
        part = _percent(volume.file_size_bytes, progress)
        path = await self._cache.get(
            volume.image_uid, volume.source_format, volume.sha256, lambda: self._fetch(ticket), part
        )
        await qemu_img.check_standalone(path, volume.source_format)
        return path

    def sees(self, datastore_id: int) -> bool:
        """Whether the node can open files of a datastore itself: known by a mark in it, not by its path alone."""
        found = [store for store in self.datastores if store.id == datastore_id]
        return bool(found) and is_visible(found[0])


def is_visible(datastore: Datastore) -> bool:
    """Whether the datastore's mark is at its path on this machine."""
    if not datastore.status.mark or not datastore.spec.path:
        return False
    try:
        text = (Path(datastore.spec.path) / MARK_FILE).read_text()
    except (OSError, UnicodeDecodeError):
        return False
    return text.strip() == datastore.status.mark


async def _formatted(plan: DiskPlan, target: Path) -> None:
    """An empty disk with a file system in it, made in a plain file: no root, no loop device."""
    command = _FILESYSTEMS.get(plan.template.filesystem)
    if command is None:
        raise StorageError(Reason.STAGING_FAILED, f"no such file system: {plan.template.filesystem!r}")
    plain = target.with_name(target.name + ".raw")
    try:
        await qemu_img.create_blank(plain, "raw", plan.template.size_mib * MIB)
        await run_program([*command, plain], limits=_MAKE_LIMITS)
        await qemu_img.convert(plain, "raw", target, plan.format)
    except CommandError as err:
        raise StorageError(Reason.STAGING_FAILED, f"{plan.path.name} cannot be formatted: {err}") from err
    finally:
        plain.unlink(missing_ok=True)


def _percent(total: int, progress: Progress) -> Progress:
    return lambda done: progress(min(100, done * 100 // total) if total else 0)
