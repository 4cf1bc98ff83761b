"""What the agent knows of one VM on one host. Values only: the reconciler changes them, the rules read them."""

from __future__ import annotations

from enum import Enum

from moln.compute.v1.vm_pb2 import VmStatus
from moln.node.v1.node_service_pb2 import VmOrder, VmReport
from services.hostagent.drivers.ports import Deed, End, Power

Key = tuple[int, int]
"""Host id and VM id: two hosts of one agent may each have something of the same VM."""


class Doing(Enum):
    """What is under way for a guest: one thing at a time."""

    NOTHING = "nothing"
    CLAIMING = "claiming"
    """The claim is reported and not answered."""
    STARTING = "starting"
    SHUTTING_DOWN = "shutting_down"
    PLUGGING = "plugging"
    SUSPENDING = "suspending"
    UPLOADING = "uploading"
    HANDING_OVER = "handing_over"
    MIGRATING = "migrating"
    RECEIVING = "receiving"
    FETCHING = "fetching"
    OPERATING = "operating"
    ERASING = "erasing"
    LEAVING = "leaving"
    """Everything is erased; the report of it is not answered."""


DOING_OF_DEED = {
    Deed.START: Doing.STARTING,
    Deed.SHUT_DOWN: Doing.SHUTTING_DOWN,
    Deed.HALT: Doing.SHUTTING_DOWN,
    Deed.PLUG: Doing.PLUGGING,
    Deed.SUSPEND: Doing.SUSPENDING,
    Deed.UPLOAD: Doing.UPLOADING,
    Deed.HAND_OVER: Doing.HANDING_OVER,
    Deed.MIGRATE: Doing.MIGRATING,
    Deed.RECEIVE: Doing.RECEIVING,
    Deed.FETCH: Doing.FETCHING,
    Deed.OPERATE: Doing.OPERATING,
    Deed.ERASE: Doing.ERASING,
}


class Guest:
    """One VM on one host."""

    __slots__ = (
        "background",
        "before_claim",
        "changed",
        "claimed",
        "doing",
        "end",
        "host_id",
        "in_flight",
        "not_before",
        "order",
        "ordered_at",
        "power",
        "queued",
        "refused",
        "sighted",
        "status",
        "vm_id",
        "waits",
    )

    def __init__(self, host_id: int, vm_id: int) -> None:
        self.host_id = host_id
        self.vm_id = vm_id
        self.order: VmOrder | None = None
        self.ordered_at = 0.0
        """Monotonic time of the order that is being carried out; 0 where its first running is already told."""
        self.status: VmStatus | None = None
        """What this agent reports, or took over from the VM's folder or the store."""
        self.before_claim: VmStatus | None = None
        """What `status` was before the claim under way."""
        self.claimed: VmOrder | None = None
        """The order that the claim under way is for."""
        self.refused: VmOrder | None = None
        """The order for which a claim was refused: nothing is tried until another one comes."""
        self.power = Power.ABSENT
        self.end = End.NONE
        self.sighted = False
        """Whether the hypervisor was looked at since the order came: a guest may have arrived unheard."""
        self.doing = Doing.NOTHING
        self.background = ""
        """Id of the background operation that is under way, or empty."""
        self.not_before = 0.0
        """Unix time before which nothing is repeated after a failure; 0: at once."""
        self.waits = False
        """Whether a timer will look at the guest again when that is over."""
        self.changed = 0
        """Number of the last change of `power`; a look at the hypervisor that began before it says nothing."""
        self.in_flight: VmReport | None = None
        self.queued: list[VmReport] = []

    @property
    def key(self) -> Key:
        """Host id and VM id."""
        return self.host_id, self.vm_id

    @property
    def uid(self) -> str:
        """The VM's uid: what is here goes before what is ordered. Empty for a guest of which nothing is known."""
        if self.status is not None:
            return self.status.uid
        return self.order.uid if self.order is not None else ""

    @property
    def is_here(self) -> bool:
        """Whether anything of the VM is on the host, as far as is known."""
        return self.status is not None or self.power is not Power.ABSENT
