"""The verb × state matrix, asked for cell by cell: VMs are brought to a state, every verb is tried, ends are awaited.

In each state one VM serves for all verbs that are refused, since nothing may happen to it; an allowed verb has its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import grpc

from moln.compute.v1 import vm_pb2
from moln.compute.v1 import vm_service_pb2 as pb
from moln.compute.v1.template_pb2 import VmTemplate
from services.api.core.verbs import VERBS, Verb
from services.cli.rpc_errors import Failure, decode
from tests.support.eventually import eventually_sync
from tests.support.stack import Stack
from tests.support.verb_calls import BEFORE, VerbCalls

SETTLE_SECONDS = 60.0
ABOUT_SNAPSHOTS = frozenset({Verb.CREATE_SNAPSHOT, Verb.REVERT_SNAPSHOT, Verb.DELETE_SNAPSHOT})

ABOUT_DISK_SNAPSHOTS = frozenset({Verb.CREATE_DISK_SNAPSHOT, Verb.REVERT_DISK_SNAPSHOT, Verb.DELETE_DISK_SNAPSHOT})


def state_of(name: str) -> vm_pb2.VmState:
    """VM_STATE_RUNNING for `RUNNING`."""
    return getattr(vm_pb2, f"VM_STATE_{name}")  # type: ignore[no-any-return]


RESTS: Mapping[str, str] = {
    "HELD": "HELD", "PENDING": "RUNNING", "STARTING": "RUNNING", "RUNNING": "RUNNING", "SUSPENDING": "SUSPENDED",
    "SUSPENDED": "SUSPENDED", "STOPPING": "STOPPED", "STOPPED": "STOPPED", "POWERING_OFF": "POWERED_OFF",
    "POWERED_OFF": "POWERED_OFF", "UNDEPLOYING": "UNDEPLOYED", "UNDEPLOYED": "UNDEPLOYED", "MIGRATING": "RUNNING",
    "UNKNOWN": "RUNNING", "FAILED": "RUNNING", "TERMINATING": "DONE",
}  # fmt: skip
"""Where a VM in that state comes to by itself, once nothing holds it there."""


def reached(verb: Verb, state: str) -> vm_pb2.VmState:
    """The state in which a VM is after the verb."""
    row = VERBS[verb]
    return row.reached if row.desired else state_of(RESTS[state])


def allowed_in(state: str) -> list[Verb]:
    """By the table."""
    return [verb for verb, row in VERBS.items() if state_of(state) in row.allowed]


class Cell(NamedTuple):
    """What came of a verb in a state. `failure`: it was refused. `after` None: it is not where it should be."""

    failure: Failure | None = None
    before: vm_pb2.Vm | None = None
    after: vm_pb2.Vm | None = None
    operation: pb.VmOperation | None = None
    problem: str = ""


@dataclass
class Matrix:
    """VMs by the state that they are to be in, and what came of asking."""

    stack: Stack
    calls: VerbCalls
    host_id: int
    """Where a deploy places a VM."""
    impossible: Collection[Verb] = ()
    """Verbs that hosts cannot do: refused wherever a VM has a host, so that they need no VM of their own."""
    vms: dict[str, dict[Verb | None, int]] = field(default_factory=dict)
    cells: dict[tuple[str, Verb], Cell] = field(default_factory=dict)
    _open: list[tuple[str, Verb, vm_pb2.Vm, Any]] = field(default_factory=list)

    def create(self, state: str, template: VmTemplate, *, is_held: bool = False, host_id: int = 0) -> None:
        """The VMs for a state: one for each verb that it allows, and one (None) for all others."""
        wanted: list[Verb | None] = [None, *(verb for verb in allowed_in(state) if verb not in self.impossible)]
        request = pb.CreateVmRequest(template=template, is_held=is_held, host_id=host_id)
        answer = self.calls.call("BatchCreateVms", pb.BatchCreateVmsRequest(requests=[request] * len(wanted)))
        problems = [result.failure.message for result in answer.results if result.HasField("failure")]
        assert not problems, problems[0]
        self.vms[state] = dict(zip(wanted, (result.vm.id for result in answer.results), strict=True))

    def ids(self, *states: str) -> list[int]:
        """Their VMs."""
        return [vm_id for state in states for vm_id in self.vms[state].values()]

    def until(self, ids: Iterable[int], state: str) -> None:
        """All of these are in that state."""
        for wait in [self.calls.reaches(vm_id, state_of(state)) for vm_id in ids]:
            wait.result()

    def begin(self, verb: Verb, *states: str, is_soft: bool = False) -> None:
        """Asks for a verb of the VMs of these states, to bring them there."""
        row = VERBS[verb]
        for vm_id in self.ids(*states):
            if is_soft:
                self.calls.call(row.rpc, getattr(pb, f"{row.rpc}Request")(id=vm_id))
            else:
                asked = self.calls.ask(verb, vm_id, self.host_id)
                assert isinstance(asked, vm_pb2.Vm), asked

    def take_snapshots(self, *states: str) -> None:
        """The VMs that are asked about snapshots have one, of the whole VM or of disk 1."""
        asked = []
        for verb, vm_id in [each for state in states for each in self.vms[state].items()]:
            if verb in ABOUT_SNAPSHOTS:
                asked.append(self.calls.call("CreateVmSnapshot", pb.CreateVmSnapshotRequest(id=vm_id, name=BEFORE)))
            elif verb in ABOUT_DISK_SNAPSHOTS:
                request = pb.CreateVmDiskSnapshotRequest(id=vm_id, disk_id=1, name=BEFORE)
                asked.append(self.calls.call("CreateVmDiskSnapshot", request))
        for wait in map(self.calls.ends, asked):
            assert wait is not None
            assert wait.result().reason == ""

    def ask(self, *states: str) -> None:
        """Tries every verb in these states, first those that are refused, and begins to wait for what they reach."""
        for state in states:
            vms = self.vms[state]
            for verb in VERBS:
                if verb not in vms:
                    self._ask(state, verb, vms[None])
            for own, vm_id in vms.items():
                if own is not None:
                    self._ask(state, own, vm_id)

    def _ask(self, state: str, verb: Verb, vm_id: int) -> None:
        before = self.calls.get(vm_id)
        found = vm_pb2.VmState.Name(before.view.state).removeprefix("VM_STATE_")
        assert found == state, f"{verb}: VM {vm_id} left {state} before it was asked: {found} {before.view.message}"
        asked = self.calls.ask(verb, vm_id, self.host_id)
        if isinstance(asked, Failure):
            self.cells[state, verb] = Cell(failure=asked, before=before)
            return
        self._open.append((state, verb, before, self.calls.ends(asked)))

    def collect(self) -> None:
        """Waits for all ends."""
        waits = []
        for state, verb, before, operation in self._open:
            ended = _result(operation)
            waits.append((state, verb, before, ended, self.calls.reaches(before.id, reached(verb, state))))
        for state, verb, before, ended, wait in waits:
            after = _result(wait, is_end=reached(verb, state) == vm_pb2.VM_STATE_DONE)
            problem = next((each for each in (ended, after) if isinstance(each, str)), "")
            done = ended if isinstance(ended, pb.VmOperation) else None
            found = after if isinstance(after, vm_pb2.Vm) else None
            self.cells[state, verb] = Cell(None, before, found, done, problem)
        self._open.clear()

    def command(self, *words: str) -> None:
        """Tells the simulator, and waits until it has obeyed."""
        line = " ".join(words)
        before = self._obeyed(line)
        with (self.stack.folder.state_of("sim") / "sim" / "control").open("a") as control:
            control.write(f"{line}\n")
        eventually_sync(lambda: self._obeyed(line) > before, what=f"the simulator obeys: {line}")

    def _obeyed(self, line: str) -> int:
        log = self.stack.log("sim").splitlines()
        return sum("command obeyed" in each and line in each for each in log)


def _result(wait: Any, *, is_end: bool = False) -> object:
    """What was waited for, or what went wrong; a VM that is gone before the wait began has reached its end."""
    try:
        return wait.result() if wait is not None else None
    except grpc.RpcError as err:
        failure = decode(err)
        if is_end and failure.reason == "VM_NOT_FOUND":
            return vm_pb2.Vm(view=vm_pb2.VmView(state=vm_pb2.VM_STATE_DONE))
        return failure.message
