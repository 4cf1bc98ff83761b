"""Verbs and operations at random, on simulated hosts that fail, stall, vanish and lie, while processes are killed.

In the end what is stored agrees with what the hypervisors hold, nothing ran twice or is lost, nothing is stuck, and
every refusal on the way was one of the documented reasons.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.text_format import MessageToString

from moln.compute.v1 import template_pb2, vm_pb2, vm_service_pb2
from services.cli.resources.vms import disk_snapshots_of
from services.common.domain.reasons import Reason
from services.common.rpc import decode_error
from tests.chaos import hypervisors
from tests.support.eventually import eventually_sync
from tests.support.stack import Stack, a_stack
from tests.support.stack_api import StackApi

HOSTS = 8
VMS = 60
KILLED = ("sim", "api", "scheduler", "sim")
SETTLE_SECONDS = 180.0
FAULTS = {
    "start_failure_rate": "0.05",
    "start_stall_rate": "0.02",
    "deed_failure_rate": "0.1",
    "deed_latency_s": "0.02",
    "deed_stall_rate": "0.03",
    "lie_rate": "0.03",
    "stall_s": "2",
    "crash_rate_per_min": "0.2",
    "vanish_rate_per_min": "0.1",
}
_PB = vm_service_pb2
_S = vm_pb2.VmState
EXPECTED = frozenset(
    {
        Reason.STATE_FORBIDS, Reason.OPERATION_IN_FLIGHT, Reason.OPERATION_NOT_FOUND, Reason.OPERATION_ENDED,
        Reason.SNAPSHOT_NOT_FOUND, Reason.NAME_TAKEN, Reason.FIELD_INVALID, Reason.CONFLICT, Reason.VM_NOT_FOUND,
        Reason.DISK_NOT_FOUND, Reason.STORE_STALE, Reason.SERVICE_STOPPING, Reason.SERVICE_UNAVAILABLE,
        Reason.STORE_UNAVAILABLE, Reason.NOT_LEADER,
    }
)  # fmt: skip
"""What a user is told who asks for something at the wrong moment."""
AT_REST = frozenset(
    {_S.VM_STATE_RUNNING, _S.VM_STATE_POWERED_OFF, _S.VM_STATE_SUSPENDED, _S.VM_STATE_STOPPED, _S.VM_STATE_HELD}
)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with a_stack("--sim-hosts", str(HOSTS), "--no-real-host") as running:
        yield running


@pytest.fixture
def api(stack: Stack) -> Iterator[StackApi]:
    api = StackApi(stack)
    yield api
    api.close()


@pytest.fixture
def journal(stack: Stack) -> Path:
    return stack.folder.state_of("sim") / "sim" / "hypervisors.journal"


class Users:
    """Many who ask for anything at any time."""

    def __init__(self, api: StackApi, chance: random.Random, ids: list[int]) -> None:
        self.api, self.chance, self.ids = api, chance, ids
        self.refusals: Counter[str] = Counter()
        self.asked = 0
        pick = self.chance.choice
        self._requests: list[Callable[[int], tuple[str, object]]] = [
            lambda vm: ("PoweroffVm", _PB.PoweroffVmRequest(id=vm, is_hard=pick((True, False)))),
            lambda vm: ("ResumeVm", _PB.ResumeVmRequest(id=vm)),
            lambda vm: ("ResumeVm", _PB.ResumeVmRequest(id=vm)),
            lambda vm: ("SuspendVm", _PB.SuspendVmRequest(id=vm)),
            lambda vm: ("StopVm", _PB.StopVmRequest(id=vm)),
            lambda vm: ("RebootVm", _PB.RebootVmRequest(id=vm)),
            lambda vm: ("MigrateVm", _PB.MigrateVmRequest(id=vm, mode=pick(("", "live", "save", "cold")))),
            lambda vm: ("ReschedVm", _PB.ReschedVmRequest(id=vm)),
            lambda vm: ("ResizeVm", _PB.ResizeVmRequest(id=vm, size=vm_pb2.VmSize(memory_mib=pick((64, 96, 128))))),
            lambda vm: ("AttachVmDisk", _PB.AttachVmDiskRequest(id=vm, disk=template_pb2.DiskTemplate(size_mib=16))),
            lambda vm: ("DetachVmDisk", _PB.DetachVmDiskRequest(id=vm, disk_id=pick((0, 1, 2)))),
            lambda vm: ("CreateVmSnapshot", _PB.CreateVmSnapshotRequest(id=vm, name=pick(("a", "b", "c")))),
            lambda vm: ("RevertVmSnapshot", _PB.RevertVmSnapshotRequest(id=vm, name=pick(("a", "b", "c")))),
            lambda vm: ("DeleteVmSnapshot", _PB.DeleteVmSnapshotRequest(id=vm, name=pick(("a", "b", "c")))),
            lambda vm: ("CreateVmDiskSnapshot", self._of_disk(_PB.CreateVmDiskSnapshotRequest(id=vm))),
            lambda vm: ("RevertVmDiskSnapshot", self._of_disk(_PB.RevertVmDiskSnapshotRequest(id=vm))),
            lambda vm: ("DeleteVmDiskSnapshot", self._of_disk(_PB.DeleteVmDiskSnapshotRequest(id=vm))),
            lambda vm: ("CancelVmOperation", _PB.CancelVmOperationRequest(id=vm)),
            lambda vm: ("RecoverVm", _PB.RecoverVmRequest(id=vm, action=_PB.RECOVER_ACTION_RETRY)),
        ]

    def _of_disk(self, request: Any) -> Any:
        """One of three snapshots of one of two disks."""
        request.disk_id, request.name = self.chance.choice((0, 1)), self.chance.choice(("a", "b", "c"))
        return request

    def ask(self) -> None:
        """One request; a refusal must be a documented one."""
        method, request = self.chance.choice(self._requests)(self.chance.choice(self.ids))
        self.asked += 1
        try:
            self.api.ask(method, request)
        except grpc.RpcError as err:
            error = decode_error(err)
            self.refusals[error.reason] += 1
            is_away = error.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
            assert is_away or error.reason in EXPECTED, f"{method}: {error.reason}: {error.message}"


def _set(stack: Stack, knobs: dict[str, str]) -> None:
    lines = "".join(f"set {name} {value}\n" for name, value in knobs.items())
    with (stack.folder.state_of("sim") / "sim" / "control").open("a") as control:
        control.write(lines)


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("operations", [1000, pytest.param(10_000, marks=pytest.mark.long)])
def test_whatever_is_asked_for_and_goes_wrong_states_agree_in_the_end(
    stack: Stack, api: StackApi, journal: Path, operations: int
) -> None:
    chance = random.Random(operations)
    ids = api.create(template_pb2.VmTemplate(memory_mib=64, disks=[template_pb2.DiskTemplate(size_mib=16)]), VMS)
    eventually_sync(lambda: api.count("RUNNING") == VMS, within=SETTLE_SECONDS)
    _set(stack, FAULTS)
    users = Users(api, chance, ids)
    for number in range(1, operations + 1):
        users.ask()
        if number % (operations // 5) == 0 and number < operations:
            stack.kill(KILLED[number // (operations // 5) - 1])
            _set(stack, FAULTS)  # a simulator that was killed has forgotten them
    _set(stack, dict.fromkeys(FAULTS, "0"))
    eventually_sync(lambda: _is_settled(api), what="every VM is at rest", within=SETTLE_SECONDS)
    _check_agreement(api, journal)
    api.terminate(ids)
    eventually_sync(lambda: not api.vms(), what="all are gone", within=SETTLE_SECONDS)
    assert not hypervisors.present(journal), "guests are left on hosts"
    usage = eventually_sync(lambda: not api.usage().ListFields())
    assert usage, f"usage is left: {api.usage()}"


def _is_settled(api: StackApi) -> bool:
    """No VM is on its way, or has an operation in flight."""
    unsettled = [
        f"{vm.id} {_S.Name(vm.view.state)}: {MessageToString(vm, as_one_line=True)}"
        for vm in api.vms()
        if vm.view.state not in AT_REST or vm.intent.operation.id or vm.placement.HasField("move")
    ]
    assert not unsettled, "\n".join(unsettled)
    return True


def _check_agreement(api: StackApi, journal: Path) -> None:
    """What is shown is what is: seen by the hypervisors' own books."""
    vms = api.vms()
    assert len(vms) == VMS, "a VM is lost"
    running = hypervisors.running(journal)
    shown = {vm.uid for vm in vms if vm.view.state == _S.VM_STATE_RUNNING}
    assert set(running) == shown, f"shown and not running: {shown - set(running)}, running: {set(running) - shown}"
    assert not [uid for uid, count in running.items() if count > 1], "a guest runs twice"
    assert not hypervisors.ever_twice(journal), "some ran on two hosts at once"
    for vm in vms:
        held = [(each.disk_id, each.name) for each in disk_snapshots_of(vm)]
        assert len(set(held)) == len(held), f"VM {vm.id} has a snapshot of a disk twice: {held}"
        assert len(vm.statuses) <= 1, f"VM {vm.id} is on {len(vm.statuses)} hosts"
        if vm.view.state == _S.VM_STATE_RUNNING:
            assert vm.statuses[0].host_id == vm.placement.host_id
            assert vm.spec.template.memory_mib == vm.placement.granted.memory_mib, "what is held is what the VM has"
