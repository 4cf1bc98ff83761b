"""Memory on disk: a guest is saved into a file in its folder and goes on from it, here or on another node.

The file is `memory.part` while it is written, `memory` when it is whole, and `memory.loaded` from when a guest has it
until that guest runs. So that no guest ever goes on from memory that is older than its disks, `memory` is renamed while
the guest that has loaded it stands still. Whatever a crash leaves is settled by `settle`.
"""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path

from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.hostagent.drivers.libvirt.connection import LiveFlags
from services.hostagent.drivers.libvirt.guests import Guests
from services.hostagent.drivers.libvirt.live import LiveGuests, Percent
from services.hostagent.drivers.libvirt.observe import power_of
from services.hostagent.drivers.libvirt.shape import adapted, memory_kib
from services.hostagent.drivers.libvirt.spec import DomainSpec
from services.hostagent.drivers.libvirt.steps import remove_guest
from services.hostagent.drivers.libvirt.xml import parse
from services.hostagent.drivers.ports import Power
from services.hostagent.storage.folders import VmFolder

SPARE_BYTES = 64 * 1024 * 1024


class Saving:
    """Saves guests and finds out what became of saves that were cut off."""

    def __init__(self, guests: Guests, live: LiveGuests) -> None:
        self._guests, self._live = guests, live

    async def settle(self, uid: str, folder: VmFolder) -> None:
        """Brings the files of a VM's memory to what is true: whole or not there. Idempotent.

        Waits for a save that a former agent has begun: the hypervisor goes on with it.
        """
        if not folder.has_memory_files():
            return
        if folder.memory_part.exists():
            await self._live.job_ends(uid)
            await self._settle_part(uid, folder)
        state, _reason = await self._live.state(uid)
        if folder.memory_loaded.exists():
            if state == LiveFlags.PAUSED:
                await self._live.resume(uid)
            folder.memory_loaded.unlink(missing_ok=True)
        elif folder.memory.exists() and power_of(state) is Power.RUNNING and state != LiveFlags.PAUSED:
            folder.memory.unlink(missing_ok=True)  # somebody else restored it: it is older than the disks

    async def _settle_part(self, uid: str, folder: VmFolder) -> None:
        state, reason = await self._live.state(uid)
        is_off = power_of(state) is Power.OFF and reason in (LiveFlags.UNKNOWN, LiveFlags.OFF_SAVED)
        if is_off and await self._live.saved_xml(folder.memory_part) is not None:
            folder.memory_part.replace(folder.memory)
        else:
            folder.memory_part.unlink(missing_ok=True)

    async def save(self, uid: str, folder: VmFolder, percent: Percent) -> None:
        """The guest is off afterwards, and its memory a file. Raises MolnError SAVE_FAILED; then it runs on."""
        await self.settle(uid, folder)
        if folder.memory.exists():
            return
        if not await self._live.runs(uid):
            raise MolnError(Reason.SAVE_FAILED, "the guest does not run: it has no memory to save")
        await self._check_room(uid, folder)
        try:
            await self._live.save(uid, folder.memory_part, percent)
        except MolnError as err:
            folder.memory_part.unlink(missing_ok=True)
            raise MolnError(Reason.SAVE_FAILED, err.message) from err
        except asyncio.CancelledError:
            await self._settle_part(uid, folder)
            raise
        folder.memory_part.replace(folder.memory)

    async def _check_room(self, uid: str, folder: VmFolder) -> None:
        """Refuses at once what would fill the disk: the guest would have stood still for nothing."""
        needed = memory_kib(await self._live.describe(uid), "currentMemory") * 1024 + SPARE_BYTES
        free = (await asyncio.to_thread(shutil.disk_usage, folder.path)).free
        if needed > free:
            mib = 1024 * 1024
            message = f"its memory takes up to {needed // mib} MiB, and {free // mib} MiB are free on the node's disk"
            raise MolnError(Reason.SAVE_FAILED, message)


@dataclass(slots=True)
class RestoreGuest:
    """The guest, from its memory. A restore that fails leaves the memory where it is."""

    guests: Guests
    live: LiveGuests
    folder: VmFolder
    spec: DomainSpec
    name: str = "restore_guest"

    async def needed(self) -> bool:
        """Memory that is there waits to be loaded."""
        return self.folder.memory.exists() or self.folder.memory_loaded.exists()

    async def do(self) -> None:
        """Loads it, lets go of the file, and only then lets the guest run."""
        uid = self.spec.uid
        if self.spec.type == "test":  # it knows neither a changed domain nor one that stands still
            await self._load(None)
            self.folder.drop_memory()
            return
        if not await self.live.runs(uid) and self.folder.memory.exists():
            await self._load(await self._xml())
        if self.folder.memory.exists():
            self.folder.memory.replace(self.folder.memory_loaded)
        if (await self.live.state(uid))[0] == LiveFlags.PAUSED:
            await self.live.resume(uid)
        self.folder.memory_loaded.unlink(missing_ok=True)

    async def _load(self, xml: str | None) -> None:
        try:
            await self.live.restore(self.folder.memory, xml)
        except MolnError as err:
            raise MolnError(Reason.START_FAILED, err.message) from err

    async def _xml(self) -> str:
        """The domain as it was saved, with this node's paths and bridges."""
        saved = await self.live.saved_xml(self.folder.memory)
        if saved is None:
            message = f"{self.folder.memory} holds no memory of a guest: power off --hard drops it"
            raise MolnError(Reason.START_FAILED, message)
        bridges = [(nic.mac.lower(), nic.bridge) for nic in self.spec.nics]
        here = former_folder(saved, self.spec.uid) or str(self.folder.path)
        return adapted(saved, self.spec.mark, here=Path(here), there=self.folder.path, bridges=bridges)

    async def verify(self) -> bool:
        """It may have ended already, as after a start."""
        return not await self.needed() and await self.guests.power(self.spec.uid) is not Power.ABSENT

    async def undo(self) -> None:
        """Nothing of it stays in the hypervisor; memory that no guest has used is kept."""
        is_unused = self.folder.memory.exists()
        await remove_guest(self.guests, self.spec.uid)
        if not is_unused:
            self.folder.memory_loaded.unlink(missing_ok=True)


def former_folder(xml: str, uid: str) -> str:
    """The VM's folder on the node where it was saved, by the paths of its devices; empty where there are none."""
    for element in parse(xml).iter():
        for value in (*element.attrib.values(), element.text or ""):
            head, found, _tail = value.partition(f"/{uid}/")
            if found and head.startswith("/"):
                return f"{head}/{uid}"
    return ""
