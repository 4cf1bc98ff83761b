"""The states of a VM as a document: what each means, which verb is allowed where, and how they follow each other.

The diagram is drawn by the rules themselves: an example of each state is put through the verb table and the view.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from moln.compute.v1 import host_pb2, vm_pb2
from scripts.comments import comment_of
from services.api.core.verbs import VERBS, Executor, Verb, next_intent, state_name
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
)


def _parts(
    desired: vm_pb2.DesiredState, phase: vm_pb2.VmPhase | None = None, *, is_placed: bool = True, observed: int = 1
) -> VmParts:
    placement = vm_pb2.VmPlacement(host_id=_HOST, epoch=1) if is_placed else None
    status = None
    if phase is not None:
        status = vm_pb2.VmStatus(host_id=_HOST, epoch=1, phase=phase, observed_generation=observed)
    return VmParts(vm_pb2.VmIntent(desired=desired, generation=1), placement, None, None, status)


_RUN, _OFF = vm_pb2.DESIRED_STATE_RUNNING, vm_pb2.DESIRED_STATE_POWERED_OFF
EXAMPLES: Mapping[str, tuple[VmParts, host_pb2.HostLiveness]] = {
    "PENDING": (_parts(_RUN, is_placed=False), _HEARD),
    "HELD": (_parts(vm_pb2.DESIRED_STATE_HELD, is_placed=False), _HEARD),
    "STARTING": (_parts(_RUN, vm_pb2.VM_PHASE_STARTING), _HEARD),
    "RUNNING": (_parts(_RUN, vm_pb2.VM_PHASE_RUNNING), _HEARD),
    "POWERING_OFF": (_parts(_OFF, vm_pb2.VM_PHASE_RUNNING, observed=0), _HEARD),
    "POWERED_OFF": (_parts(_OFF, vm_pb2.VM_PHASE_POWERED_OFF), _HEARD),
    "FAILED": (_parts(_RUN, vm_pb2.VM_PHASE_FAILED), _HEARD),
    "UNKNOWN": (_parts(_RUN, vm_pb2.VM_PHASE_RUNNING), _SILENT),
    "TERMINATING": (_parts(vm_pb2.DESIRED_STATE_TERMINATED, vm_pb2.VM_PHASE_RUNNING), _HEARD),
}
"""One of each state that this release can bring about."""


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
        *table(("state", "meaning", "in this release"), _meanings()),
        "",
        "## Verbs",
        "",
        "In any other state a verb is refused with FAILED_PRECONDITION/STATE_FORBIDS, which names the states below.",
        "Asking for what is desired already changes nothing. A verb that nobody carries out yet is refused with",
        "UNIMPLEMENTED/CAPABILITY.",
        "",
        *table(("verb", "allowed in", "makes desired", "carried out by"), _verbs()),
    ]


def _meanings() -> list[tuple[str, str, str]]:
    rows = []
    for value in vm_pb2.VmState.DESCRIPTOR.values:
        name = state_name(value.number)
        if value.number:
            is_shown = "yes" if name in EXAMPLES else "in events" if name == "DONE" else "no"
            rows.append((name, comment_of(value), is_shown))
    return rows


def _verbs() -> list[tuple[str, str, str, str]]:
    rows = []
    for verb, row in VERBS.items():
        desired = vm_pb2.DesiredState.Name(row.desired).removeprefix("DESIRED_STATE_") if row.desired else ""
        allowed = "every state" if verb is Verb.TERMINATE else ", ".join(sorted(map(state_name, row.allowed)))
        rows.append((f"`{verb}`", allowed, desired, "–" if row.executor is Executor.NONE else str(row.executor)))
    return rows


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
            if state not in row.allowed or not row.desired or row.executor is Executor.NONE or verb is Verb.TERMINATE:
                continue
            assert parts.intent is not None
            changed = next_intent(verb, row, state, parts.intent, is_hard=False)
            after = state_name(compute_view(parts._replace(intent=changed), liveness).state) if changed else name
            if after != name:
                found.add((name, after, str(verb)))
    return found
