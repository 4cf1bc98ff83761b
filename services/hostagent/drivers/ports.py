"""What the agent asks of a driver: small Protocols, and the values that cross them. Nothing here does anything.

A driver may carry many hosts (the simulator) or one. Work is begun and answered later by a callback, so that a driver
can carry thousands of VMs without a task for each; all calls and callbacks happen on the agent's event loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from moln.compute.v1.host_pb2 import HostInventory
from moln.compute.v1.vm_pb2 import Operation, VmStatus
from moln.image.v1.image_pb2 import Datastore
from moln.node.v1.node_service_pb2 import AgentAnswer, AgentCommand, ForeignGuests, Screenshot, VmOrder
from services.common.domain.reasons import Reason
from services.hostagent.drivers.stats import StatsDriver


class Power(Enum):
    """What a hypervisor says of a guest."""

    ABSENT = "absent"
    """Neither guest nor disks are there."""
    OFF = "off"
    SAVED = "saved"
    """Off, and its memory is kept on the host: a start goes on where it was."""
    RUNNING = "running"
    """Also paused: its vCPUs exist. A guest that is still arriving by a live migration is OFF until it runs."""
    UNKNOWN = "unknown"
    """The hypervisor does not answer for it."""


class End(Enum):
    """How a guest that is off came to be off."""

    NONE = "none"
    """Not known."""
    SHUT_DOWN = "shut down"
    """From within."""
    CRASHED = "crashed"
    VANISHED = "vanished"
    """Without moln's doing: the node rebooted, somebody destroyed it."""
    BY_AGENT = "by agent"
    """Stopped by an agent at its own end, which left its mark (Deed.HALT)."""


class Deed(Enum):
    """What a driver is asked to do with a guest. Every deed is idempotent."""

    START = "start"
    """Stage what is missing, create the guest, start it. On failure undo what this try has made."""
    SHUT_DOWN = "shut_down"
    """Ask the guest to shut down; pull the plug after `Work.grace_s`. Disks stay."""
    PLUG = "plug"
    """Pull the plug. Disks stay; memory that was saved is dropped."""
    SUSPEND = "suspend"
    """Save the guest's memory beside its disks; it is off afterwards (Power.SAVED)."""
    UPLOAD = "upload"
    """Bring disks, and memory that was saved, to the datastore by `order.datastore`; `facts.saved` names them. What is
    here stays."""
    HAND_OVER = "hand_over"
    """As the source of a move by SAVE or COLD: name disks and memory with their checksums in `facts.saved`, for the
    target to fetch from the data port. They stay as they are until an ERASE or a START."""
    RECEIVE = "receive"
    """As the target of a move: prepare folder, network and, for a live one without shared disks, empty disks."""
    FETCH = "fetch"
    """As the target of a move by SAVE or COLD: fetch what `order.move.peer_status.saved` names, and verify it."""
    MIGRATE = "migrate"
    """As the source of a live move: hand the running guest over to `order.move`'s host. Done: it runs there and not
    here. Failed: it runs here. Begun again after a crash of the agent it finds out what became of it; it never runs in
    two places."""
    OPERATE = "operate"
    """Carry out `Work.operation`. After a crash of the agent it is asked again: the hypervisor says what is done."""
    HALT = "halt"
    """SHUT_DOWN at the agent's own end: leaves a mark beside the disks, so that `Seen.end` is BY_AGENT afterwards."""
    ERASE = "erase"
    """Pull the plug, and leave nothing of the VM."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a deed ended. `reason` is None where it is done; `step` is the step that failed, in words for people.

    `reason` and `message` may also stand beside success: Reason.PLUG_PULLED of a SHUT_DOWN. `results` are those of an
    operation. `facts` holds what is true of the guest now, in the fields FACTS of a status; those that it leaves empty
    are not touched unless `cleared` names them.
    """

    is_done: bool
    reason: Reason | None = None
    message: str = ""
    step: str = ""
    was_interrupted: bool = False
    results: Mapping[str, str] = field(default_factory=dict)
    facts: VmStatus | None = None
    cleared: tuple[str, ...] = ()


FACTS = ("snapshots", "disk_snapshots", "saved", "size", "needs_restart", "restart_fields", "guest_addresses")
"""Fields of a status that a driver finds out."""


DONE = Outcome(is_done=True)
INTERRUPTED = Outcome(is_done=False, message="superseded by another order", was_interrupted=True)


@dataclass(slots=True)
class Work:
    """A deed on one guest. `done` is called exactly once, never from within `begin`."""

    deed: Deed
    host_id: int
    vm_id: int
    uid: str
    order: VmOrder | None
    """What to make: of START always there, complete, and allowed (the claim is granted)."""
    status: VmStatus
    """The status that was last reported: epoch, attempt."""
    done: Callable[[Work, Outcome], None]
    progress: Callable[[Work, str, int], None]
    """Tells the step under way and the percent of it that is done; may be called often."""
    grace_s: float = 0.0
    operation: Operation | None = None
    """Of OPERATE: what to do."""
    is_background: bool = False
    """An operation beside others: it may run while one other deed on the same guest does."""

    @property
    def key(self) -> WorkKey:
        """What there is at most one of."""
        return self.host_id, self.vm_id, self.is_background


WorkKey = tuple[int, int, bool]
"""Host, VM, and whether it is a background operation."""


@dataclass(slots=True)
class Seen:
    """A guest that moln marked, as the hypervisor and the VM's folder have it now: read, never an event's content.

    `status` is what was last remembered, or None. A guest that has gone altogether is seen as ABSENT.
    """

    host_id: int
    vm_id: int
    uid: str
    epoch: int
    power: Power
    end: End = End.NONE
    status: VmStatus | None = None
    addresses: tuple[str, ...] | None = None
    """What an agent in the guest says; None where it has not answered yet."""
    began_at: int | None = None
    """What `changes` was before it was read, where it was read because of an event; None: it is as new as can be."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is in use on a host."""

    cpu_percent: float
    memory_mib: int


class Timing(Protocol):
    """Moments to come."""

    def after(self, seconds: float, callback: Callable[[], None]) -> None:
        """Calls `callback` once, `seconds` from now, on the event loop."""
        ...


class PowerDriver(Protocol):
    """Brings guests up and down."""

    def begin(self, work: Work) -> None:
        """Starts a deed and returns at once. There is at most one at a time for a guest, and one in the background."""
        ...

    def interrupt(self, host_id: int, vm_id: int, *, is_background: bool = False) -> None:
        """Asks for the deed under way to be given up; it ends as it likes. Nothing under way: no effect."""
        ...

    def remember(self, status: VmStatus, vm_id: int) -> None:
        """Keeps a status beside the guest, for `Seen.status` after a restart of the agent. Cheap; may be lost."""
        ...


class RecoveryDriver(Protocol):
    """Finds out what is there: after a restart of the agent, and again and again."""

    async def look(self, host_id: int) -> Sequence[Seen]:
        """Every guest on the host that carries this cloud's mark. Raises MolnError HYPERVISOR_FAILED."""
        ...

    def listen(self, heard: Callable[[Seen], None], changes: Callable[[], int] = lambda: 0) -> None:
        """From now on calls `heard` when a guest's power has changed (also by deeds), as soon as can be told.

        `changes` is the number of the last change that is known: what takes time to read is marked with what it was
        before, so that a guest which has been started meanwhile is not taken for off.
        """
        ...


class ConsoleChannel(Protocol):
    """Both ways of a serial console, opened."""

    def output(self) -> AsyncIterator[bytes]:
        """What the guest says; ends when the console does."""
        ...

    async def write(self, data: bytes) -> None:
        """Types."""
        ...

    async def close(self) -> None:
        """Safe to call twice."""
        ...


class ConsoleDriver(Protocol):
    """The guest's serial console. Both raise MolnError (CAPABILITY, STATE_FORBIDS, HYPERVISOR_FAILED)."""

    async def open_console(self, host_id: int, uid: str) -> ConsoleChannel:
        """A channel; an earlier one of the same guest may be ended by it."""
        ...

    async def console_log(self, host_id: int, uid: str, max_bytes: int) -> bytes:
        """The newest `max_bytes` of what the guest ever wrote (0: the driver's own limit)."""
        ...


class InsideDriver(Protocol):
    """What is inside of a guest. All raise MolnError (CAPABILITY, STATE_FORBIDS, HYPERVISOR_FAILED, and their own)."""

    async def open_screen(self, host_id: int, uid: str) -> ConsoleChannel:
        """A viewer's connection to the screen, in the bytes of VNC. Several at a time. Raises SCREEN_MISSING."""
        ...

    async def take_screenshot(self, host_id: int, uid: str) -> Screenshot:
        """A picture of the screen. Raises SCREEN_MISSING."""
        ...

    async def ask_agent(self, host_id: int, uid: str, command: AgentCommand) -> AgentAnswer:
        """What the guest's agent answers, within bounds. Raises AGENT_SILENT, EXEC_REFUSED, EXEC_UNFINISHED."""
        ...


class ForeignDriver(Protocol):
    """Guests on a hypervisor that moln did not create: looked at, never touched."""

    async def list_guests(self, host_id: int) -> ForeignGuests:
        """All of them, by name, up to a bound. Raises MolnError HYPERVISOR_FAILED."""
        ...


class InventoryDriver(Protocol):
    """What a host is, and how busy it is."""

    def boot_id(self, host_id: int) -> str:
        """Changes whenever guests of the host cannot have survived: the kernel's boot id."""
        ...

    async def inventory(self, host_id: int, datastores: Sequence[Datastore]) -> HostInventory:
        """Everything but uid and cause, which others fill in. Raises MolnError HYPERVISOR_FAILED."""
        ...

    async def load(self, host_id: int) -> Load:
        """Raises MolnError HYPERVISOR_FAILED."""
        ...


class Driver(PowerDriver, RecoveryDriver, ConsoleDriver, InventoryDriver, StatsDriver, Protocol):
    """A whole driver."""

    @property
    def name(self) -> str:
        """`libvirt`, `sim`."""
        ...

    @property
    def foreign(self) -> ForeignDriver | None:
        """Guests of others, where the driver's hypervisor can have such."""
        ...

    @property
    def inside(self) -> InsideDriver | None:
        """What is inside of guests, where the driver can look there."""
        ...

    def guest_name(self, vm_id: int, uid: str) -> str:
        """What the hypervisor calls the guest."""
        ...

    @property
    def capabilities(self) -> frozenset[str]:
        """What of the optional it can do: the names in CAPABILITIES."""
        ...


CAPABILITIES = frozenset(
    {
        "power", "console", "console_log", "suspend", "stop", "reboot", "migrate_live", "migrate_save", "migrate_cold",
        "attach_disk", "attach_nic", "resize", "resize_disk", "snapshot", "disk_snapshot", "save_disk",
        "context",
    }
)  # fmt: skip
"""What a driver may say that it can do; an inventory carries it, and the api refuses what a VM's host cannot do."""


@dataclass(frozen=True, slots=True)
class HostIdentity:
    """A host that this agent carries, and its secret."""

    host_id: int
    uid: str
    name: str
    secret: str = field(repr=False)
