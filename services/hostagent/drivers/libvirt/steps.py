"""The steps of a start on a real hypervisor: folder, disks, context, network, guest. Each can be repeated and undone.

Run by drivers/plans.py. Must not decide when a guest is started.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.hostagent.context import build_iso
from services.hostagent.drivers.libvirt.guests import Guests
from services.hostagent.drivers.libvirt.spec import DomainSpec, Mark
from services.hostagent.drivers.ports import Power
from services.hostagent.network.bridges import Bridges
from services.hostagent.network.spec import BridgeSpec
from services.hostagent.storage.disks import DiskMaker, DiskPlan
from services.hostagent.storage.folders import VmFolder, VmRecord

Percent = Callable[[str, int], None]


@dataclass(slots=True)
class ClaimFolder:
    """The VM's folder: from here on a restarted agent finds that something of the VM is on this node."""

    folder: VmFolder
    record: VmRecord
    has_tpm: bool = False
    """The hypervisor keeps a TPM for the guest; where that is told, it is found at the end."""
    name: str = "claim_folder"
    is_new: bool = False

    async def needed(self) -> bool:
        """The record says which placement the folder belongs to."""
        return self.folder.record() != self.record or (self.has_tpm and not self.folder.tpm_file.exists())

    async def do(self) -> None:
        """Makes the folder, or writes the new record into the one that is there."""
        self.is_new = not self.folder.path.exists()
        self.folder.make(self.record)
        if self.has_tpm:
            self.folder.tpm_file.touch()

    async def verify(self) -> bool:
        """It can be read back."""
        return not await self.needed()

    async def undo(self) -> None:
        """Only a folder that this run has made goes: in an older one are the guest's disks."""
        if self.is_new:
            await asyncio.to_thread(self.folder.erase)


@dataclass(slots=True)
class StageDisk:
    """One disk's file."""

    plan: DiskPlan
    maker: DiskMaker
    percent: Percent
    name: str = "stage_disks"

    async def needed(self) -> bool:
        """A disk that is there is the guest's."""
        return not self.plan.path.exists()

    async def do(self) -> None:
        """Makes it whole, or not at all."""
        with as_reason(Reason.STAGING_FAILED):
            await self.maker.make(self.plan, lambda percent: self.percent(self.name, percent))

    async def verify(self) -> bool:
        """The file is there."""
        return self.plan.path.exists()

    async def undo(self) -> None:
        """Removes the file."""
        self.plan.path.unlink(missing_ok=True)


@dataclass(slots=True)
class MakeContext:
    """The context disk, anew at each start, but for that of a guest that goes on from its memory."""

    folder: VmFolder
    variables: Mapping[str, str]
    files: Mapping[str, bytes]
    is_kept: bool = False
    name: str = "make_context"

    async def needed(self) -> bool:
        """Addresses and variables may have changed since the last start."""
        return not self.is_kept

    async def do(self) -> None:
        """Writes it in one step."""
        with as_reason(Reason.CONTEXT_FAILED):
            await build_iso(self.folder.context_iso, self.variables, self.files)

    async def verify(self) -> bool:
        """The file is there."""
        return self.folder.context_iso.exists()

    async def undo(self) -> None:
        """Removes the file."""
        self.folder.context_iso.unlink(missing_ok=True)


@dataclass(slots=True)
class ConnectNetwork:
    """The bridges that the guest's interfaces come onto. Who runs the plan holds them meanwhile."""

    bridges: Bridges
    specs: list[BridgeSpec] = field(default_factory=list)
    name: str = "connect_network"

    async def needed(self) -> bool:
        """Also a bridge that is there may have lost its address."""
        return bool(self.specs)

    async def do(self) -> None:
        """Makes them, or completes those that are there."""
        await self.bridges.ensure(self.specs)

    async def verify(self) -> bool:
        """An external bridge is not marked, and was looked at when it was asked for."""
        marked = {bridge.name for bridge in await self.bridges.marked()}
        return all(spec.name in marked or spec.is_external for spec in self.specs)

    async def undo(self) -> None:
        """Nothing: bridges are shared, and go with their last holder."""


@dataclass(slots=True)
class StartGuest:
    """The guest itself."""

    guests: Guests
    spec: DomainSpec
    name: str = "start_guest"

    async def needed(self) -> bool:
        """One that runs was started before the agent was killed."""
        return await self.guests.power(self.spec.uid) is not Power.RUNNING

    async def do(self) -> None:
        """Defines and starts it."""
        await self.guests.start(self.spec)

    async def verify(self) -> bool:
        """It may have ended already: how is then seen by a look, and is no failure of the start."""
        return await self.guests.power(self.spec.uid) is not Power.ABSENT

    async def undo(self) -> None:
        """Nothing of it stays in the hypervisor."""
        await remove_guest(self.guests, self.spec.uid)


@dataclass(slots=True)
class AdoptGuest:
    """A guest that others have defined, and that was imported."""

    guests: Guests
    mark: Mark
    name: str = "adopt_guest"

    async def needed(self) -> bool:
        """Also one that runs may lack the mark."""
        return True

    async def do(self) -> None:
        """Marks it, and starts it where it is off."""
        await self.guests.adopt(self.mark)

    async def verify(self) -> bool:
        """It carries the mark. It may have ended already: that is seen by a look."""
        seen = await self.guests.observe(self.mark.uid)
        return seen is not None and seen.mark == self.mark

    async def undo(self) -> None:
        """Nothing: it is not moln's to end, and its mark goes with the VM."""


async def remove_guest(guests: Guests, uid: str) -> None:
    """Pulls the plug and forgets the definition, unless others made it; not there: nothing happens."""
    await guests.destroy(uid)
    await guests.undefine(uid)


@contextmanager
def as_reason(reason: Reason) -> Iterator[None]:
    """Errors of the operating system become a MolnError with this reason, that names the file."""
    try:
        yield
    except OSError as err:
        where = f"{err.filename}: " if err.filename else ""
        raise MolnError(reason, f"{where}{err.strerror or err}") from err
