"""What every operation is handed, and how it says that it failed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from moln.compute.v1.vm_pb2 import Operation, OperationParameters
from moln.node.v1.node_service_pb2 import VmOrder
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.hostagent.drivers.libvirt.compose import Endpoint
from services.hostagent.drivers.libvirt.guests import Guests
from services.hostagent.drivers.libvirt.live import LiveGuests
from services.hostagent.drivers.plans import Step, run_plan
from services.hostagent.drivers.ports import Outcome, Work
from services.hostagent.network.bridges import Bridges
from services.hostagent.storage.disks import DiskMaker
from services.hostagent.storage.folders import NodeFolders, VmFolder
from services.hostagent.storage.volumes import VolumeStore


@dataclass(frozen=True, slots=True)
class Tools:
    """What is there on the node to work with. Without `bridges` nothing is done to the network."""

    guests: Guests
    folders: NodeFolders
    disks: DiskMaker
    bridges: Bridges | None
    endpoint: Endpoint
    volumes: VolumeStore


@dataclass(frozen=True, slots=True)
class Op:
    """One operation on one guest. `order` holds the VM as it is to be when the operation is done."""

    tools: Tools
    work: Work
    order: VmOrder
    operation: Operation

    @property
    def uid(self) -> str:
        """The VM's."""
        return self.work.uid

    @property
    def parameters(self) -> OperationParameters:
        """What it is about."""
        return self.operation.parameters

    @property
    def live(self) -> LiveGuests:
        """Guests that run."""
        return self.tools.guests.live

    @property
    def folder(self) -> VmFolder:
        """The VM's."""
        return self.tools.folders.vm(self.work.uid)

    def percent(self, step: str) -> Callable[[int], None]:
        """A listener to how far a step is."""
        return lambda percent: self.work.progress(self.work, step, percent)

    async def run(self, steps: list[Step]) -> Outcome:
        """The steps as a plan: a failure undoes what this run has made."""
        return await run_plan(steps, lambda step: self.work.progress(self.work, step, 0))


Perform = Callable[[Op], Awaitable[Outcome]]


def failed(message: str) -> MolnError:
    """The operation cannot be done; the VM is as it was."""
    return MolnError(Reason.OPERATION_FAILED, message)
