"""The states of a VM as a document: what each means, which verb is allowed where, and how they follow each other.

The diagram is drawn by the rules themselves: an example of each state is put through the verb table and the view.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from moln.compute.v1 import host_pb2, vm_pb2
from scripts.comments import comment_of
from services.api.core.verbs import NOT_OF_IMPORTED, VERBS, Verb, VerbRow, next_intent, state_name
from services.api.core.view import VmParts, compute_view

Table = Callable[..., list[str]]
_HOST = 1
_HEARD = host_pb2.HostLiveness(state=host_pb2.LIVENESS_STATE_CONNECTED)
_SILENT = host_pb2.HostLiveness(state=host_pb2.LIVENESS_STATE_SILENT)

# What happens without anybody asking for it.
BY_ITSELF = (
    ("PENDING", "STARTING", "a host is found"),
    ("STARTING", "RUNNING", "the node has started it"),
    ("STARTING", "FAILED", "a step fails"),
    ("FAILED", "STARTING", "tried again"),
    ("POWERING_OFF", "POWERED_OFF", "the guest is off"),
    ("RUNNING", "POWERED_OFF", "the guest shuts down"),
    ("RUNNING", "UNKNOWN", "its host falls silent"),
    ("UNKNOWN", "RUNNING", "its host is back"),
    ("SUSPENDING", "SUSPENDED", "its memory is saved"),
    ("STOPPING", "STOPPED", "all is in the datastore"),
    ("UNDEPLOYING", "UNDEPLOYED", "its disks are in the datastore"),
    ("MIGRATING", "RUNNING", "it runs at the target, or stays"),
    ("MIGRATING", "POWERED_OFF", "it is at the target, or stays"),
    ("MIGRATING", "SUSPENDED", "it is at the target, or stays"),
)


def _parts(
    desired: vm_pb2.DesiredState,
    phase: vm_pb2.VmPhase | None = None,
    *,
    is_placed: bool = True,
    observed: int = 1,
    is_moving: bool = False,
) -> VmParts:
    placement = vm_pb2.VmPlacement(host_id=_HOST, epoch=1) if is_placed else None
    if placement is not None and is_moving:
        placement.move.phase = vm_pb2.MOVE_PHASE_GO
    status = None
    if phase is not None:
        status = vm_pb2.VmStatus(host_id=_HOST, epoch=1, phase=phase, observed_generation=observed)
    return VmParts(vm_pb2.VmIntent(desired=desired, generation=1), placement, None, None, status)


_RUN, _OFF = vm_pb2.DESIRED_STATE_RUNNING, vm_pb2.DESIRED_STATE_POWERED_OFF
_SUSPEND, _STOP = vm_pb2.DESIRED_STATE_SUSPENDED, vm_pb2.DESIRED_STATE_STOPPED
_UNDEPLOY, _RUNS = vm_pb2.DESIRED_STATE_UNDEPLOYED, vm_pb2.VM_PHASE_RUNNING
EXAMPLES: Mapping[str, tuple[VmParts, host_pb2.HostLiveness]] = {
    "PENDING": (_parts(_RUN, is_placed=False), _HEARD),
    "HELD": (_parts(vm_pb2.DESIRED_STATE_HELD, is_placed=False), _HEARD),
    "STARTING": (_parts(_RUN, vm_pb2.VM_PHASE_STARTING), _HEARD),
    "RUNNING": (_parts(_RUN, vm_pb2.VM_PHASE_RUNNING), _HEARD),
    "POWERING_OFF": (_parts(_OFF, vm_pb2.VM_PHASE_RUNNING, observed=0), _HEARD),
    "POWERED_OFF": (_parts(_OFF, vm_pb2.VM_PHASE_POWERED_OFF), _HEARD),
    "SUSPENDING": (_parts(_SUSPEND, _RUNS, observed=0), _HEARD),
    "SUSPENDED": (_parts(_SUSPEND, vm_pb2.VM_PHASE_SUSPENDED), _HEARD),
    "STOPPING": (_parts(_STOP, _RUNS, observed=0), _HEARD),
    "STOPPED": (_parts(_STOP, is_placed=False), _HEARD),
    "UNDEPLOYING": (_parts(_UNDEPLOY, _RUNS, observed=0), _HEARD),
    "UNDEPLOYED": (_parts(_UNDEPLOY, is_placed=False), _HEARD),
    "MIGRATING": (_parts(_RUN, _RUNS, is_moving=True), _HEARD),
    "FAILED": (_parts(_RUN, vm_pb2.VM_PHASE_FAILED), _HEARD),
    "UNKNOWN": (_parts(_RUN, vm_pb2.VM_PHASE_RUNNING), _SILENT),
    "TERMINATING": (_parts(vm_pb2.DESIRED_STATE_TERMINATED, vm_pb2.VM_PHASE_RUNNING), _HEARD),
}
"""One of each state that there is before the end."""


def states(table: Table) -> list[str]:
    """The lines of the document."""
    return [
        "A state is computed from what is stored of a VM and from whether its host is heard; it is never stored",
        "itself. One that ends in -ING passes by itself, except PENDING and RUNNING.",
        "",
        "```mermaid",
        *_diagram(),
        "```",
        "",
        "`terminate` is allowed in every state and cannot be taken back. A VM of a silent host is UNKNOWN until the",
        "host is back.",
        "",
        "## States",
        "",
        *table(("state", "meaning"), _meanings()),
        "",
        "## Verbs",
        "",
        "In any other state a verb is refused with FAILED_PRECONDITION/STATE_FORBIDS, which names the states below.",
        "Asking for what is desired already changes nothing. What the VM's host cannot do, by the capabilities that it",
        "reports, is refused with UNIMPLEMENTED/CAPABILITY. So is, of a VM that was imported, what needs its disks or",
        f"another definition: {', '.join(f'`{verb}`' for verb in VERBS if verb in NOT_OF_IMPORTED)}.",
        "",
        "An operation goes beside the desired state: there is one exclusive and one background operation of a VM at a",
        "time. No operation holds up a change of the desired state. A VM without a host is changed at once. While one",
        "is in flight `recover` is allowed in every state but TERMINATING; to delete it is allowed everywhere.",
        "",
        *table(("`moln vm …`", "RPC", "allowed in", "reaches", "carried out by", "needs of the host"), _verbs()),
    ]


def _meanings() -> list[tuple[str, str]]:
    values = [value for value in vm_pb2.VmState.DESCRIPTOR.values if value.number]
    return [(state_name(value.number), comment_of(value)) for value in values]


def _verbs() -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for verb, row in VERBS.items():
        allowed = "every state" if verb is Verb.TERMINATE else ", ".join(sorted(map(state_name, row.allowed)))
        for state in map(state_name, row.hard_only):
            allowed = allowed.replace(state, f"{state} (only `--hard`)")
        capability = f"`{row.capability}`" if row.capability else "–"
        rows.append((f"`{verb}`", f"`{row.rpc}`", allowed, _reaches(row), str(row.executor), capability))
    return rows


def _reaches(row: VerbRow) -> str:
    if row.desired:
        return state_name(row.reached)
    if not row.operation:
        return "–"
    return "a background operation" if row.is_background else "an operation"


def _diagram() -> list[str]:
    lines = [
        "stateDiagram-v2",
        "    [*] --> alive",
        "    state alive {",
        "        [*] --> PENDING",
        "        [*] --> HELD",
    ]
    lines += [f"        {before} --> {after}: {cause}" for before, after, cause in sorted(edges())]
    return [*lines, "    }", "    alive --> TERMINATING: terminate", "    TERMINATING --> [*]: all is given back"]


def edges() -> set[tuple[str, str, str]]:
    """(from, to, cause) of all changes of state but the end."""
    found = {(before, after, cause) for before, after, cause in BY_ITSELF}
    for name, (parts, liveness) in EXAMPLES.items():
        state = compute_view(parts, liveness).state
        if state_name(state) != name:
            raise ValueError(f"the example of {name} is {state_name(state)}")
        for verb, row in VERBS.items():
            if state not in row.allowed or not row.desired or verb is Verb.TERMINATE:
                continue
            assert parts.intent is not None
            changed = next_intent(verb, row, state, parts.intent, is_hard=False)
            after = state_name(compute_view(parts._replace(intent=changed), liveness).state) if changed else name
            if after != name:
                found.add((name, after, str(verb)))
    return found
