"""Which guest of others is meant, whether it can become a VM, and what VM it becomes. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from moln.compute.v1 import host_pb2, template_pb2, vm_pb2
from services.common.domain.errors import MolnError
from services.common.domain.ids import check_name
from services.common.domain.reasons import Reason

_UNNAMEABLE = re.compile(r"[^A-Za-z0-9._-]+")
_MOST_LETTERS = 63


def choose_guest(guests: Iterable[host_pb2.ForeignGuest], wanted: str, host: str) -> host_pb2.ForeignGuest:
    """The guest of that UUID or name. Raises GUEST_NOT_FOUND."""
    for guest in guests:
        if wanted.lower() == guest.uuid or wanted == guest.name:
            return guest
    problem = f"host {host} has no guest '{wanted}' that moln did not create; see: moln host guests {host}"
    raise MolnError(Reason.GUEST_NOT_FOUND, f"guest: {problem}", fields=[("guest", problem)])


def check_importable(guest: host_pb2.ForeignGuest) -> None:
    """Raises GUEST_TAKEN for another cloud's; STATE_FORBIDS for one that is not defined, or does not run."""
    if guest.cloud_uid:
        problem = f"{guest.name} carries the mark of another cloud ({guest.cloud_uid}); let that give it back first"
        raise MolnError(Reason.GUEST_TAKEN, f"guest: {problem}", fields=[("guest", problem)])
    if not guest.is_persistent:
        problem = "it has no definition, and would be gone when it ends; define it first (virsh dumpxml, virsh define)"
        raise MolnError(Reason.STATE_FORBIDS, f"import guest {guest.name}: {problem}")
    if guest.state != "running":
        problem = f"it is {guest.state}; a guest is imported while it runs: start it first (virsh start, virsh resume)"
        raise MolnError(Reason.STATE_FORBIDS, f"import guest {guest.name}: {problem}")


def imported_spec(vm_id: int, guest: host_pb2.ForeignGuest, name: str) -> vm_pb2.VmSpec:
    """The spec without owner, cause and version: the guest's size, nothing of moln's, no other host after a loss."""
    return vm_pb2.VmSpec(
        uid=guest.uuid,
        name=name or _name_of(guest.name) or f"imported-{vm_id}",
        imported_as=guest.name,
        template=template_pb2.VmTemplate(
            vcpus=guest.vcpus,
            cpu_percent=100 * guest.vcpus,
            memory_mib=guest.memory_mib,
            no_default_network=True,
            on_host_loss=template_pb2.ON_HOST_LOSS_LEAVE,
        ),
    )


def _name_of(name: str) -> str:
    """The guest's name as VMs can have it, or empty."""
    made = _UNNAMEABLE.sub("-", name).lstrip("._-")[:_MOST_LETTERS]
    try:
        return check_name("name", made)
    except MolnError:
        return ""
