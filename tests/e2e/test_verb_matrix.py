"""The whole verb × state matrix through the API, on simulated hosts and on libvirt's test hypervisor.

VMs are held in each state, passing ones too; every verb is tried in each: what the table allows reaches what it says,
everything else is refused with the state and the allowed ones, and what the host cannot do with the capability.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from functools import partial

import grpc
import pytest

from moln.compute.v1 import vm_pb2
from moln.compute.v1.template_pb2 import DiskTemplate, VmTemplate
from services.api.core.verbs import VERBS, Verb, state_name
from tests.chaos.machines import Machine
from tests.support.eventually import eventually_sync
from tests.support.matrix import Matrix, allowed_in, reached, state_of
from tests.support.stack import Stack, a_stack
from tests.support.verb_calls import EFFECTS, VerbCalls

pytestmark = pytest.mark.timeout(240)
HOLD_SECONDS = "12"
"""How long what passes by itself is made to last: longer than it takes to ask for everything, no more."""
ON_SIM = (
    "HELD", "PENDING", "STARTING", "RUNNING", "SUSPENDING", "SUSPENDED", "STOPPING", "STOPPED", "POWERING_OFF",
    "POWERED_OFF", "UNDEPLOYING", "UNDEPLOYED", "MIGRATING", "TERMINATING", "FAILED", "UNKNOWN",
)  # fmt: skip
ON_TEST = ("HELD", "RUNNING", "SUSPENDED", "POWERED_OFF", "UNKNOWN")
"""The test hypervisor does everything at once: nothing of it lasts."""
NO_GUEST_YET = frozenset({("STARTING", Verb.CONSOLE)})
"""Allowed, and up to the host: while it has not made the guest there is no console."""
CANNOT = frozenset(
    verb
    for verb, row in VERBS.items()
    if row.capability not in ("", "suspend", "reboot", "resize") or row.operation == vm_pb2.OPERATION_KIND_MIGRATE
)
"""What the test hypervisor, which has guests without disks, cannot do."""
NOT_SIMULATED = frozenset({Verb.SAVE_DISK})
"""What simulated hosts cannot do: their disks hold nothing."""
FEW_STARTS = 3
"""Failed starts after which the pause is long enough to ask for everything."""


def simulated(**labels: str) -> VmTemplate:
    """A VM for a simulated host, with two disks and an interface."""
    disks = [DiskTemplate(size_mib=16), DiskTemplate(size_mib=16)]
    labels = {name.replace("sim_", "sim."): value for name, value in labels.items()}
    return VmTemplate(cpu_percent=1, memory_mib=16, disks=disks, requirement='DRIVER = "sim"', labels=labels)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with a_stack("--sim-hosts", "5", "--no-real-host") as running:
        yield running
        running.moln(
            "vm", "terminate", "--filter", "state=RUNNING", "--hard", "--yes"
        )  # some take HOLD_SECONDS to stop


@pytest.fixture(scope="module")
def calls(stack: Stack) -> Iterator[VerbCalls]:
    calls = VerbCalls(stack)
    yield calls
    calls.close()


def host_id(stack: Stack, name: str) -> int:
    return int(stack.read("host", "show", name)["id"])


@pytest.fixture(scope="module")
def on_sim(stack: Stack, calls: VerbCalls) -> Matrix:
    """The matrix on simulated hosts. sim-4 falls silent, sim-5 takes nothing until everything has been asked."""
    matrix = Matrix(stack, calls, host_id(stack, "sim-1"), impossible=NOT_SIMULATED)
    silent, closed = host_id(stack, "sim-4"), host_id(stack, "sim-5")
    stack.moln("host", "disable", "sim-5")
    matrix.create("UNKNOWN", simulated(), host_id=silent)
    matrix.until(matrix.ids("UNKNOWN"), "RUNNING")
    stack.moln("host", "disable", "sim-4")
    matrix.command("silence", str(silent))
    _bring_to_rest(matrix, closed)
    _bring_to_pass(matrix)
    matrix.ask("STARTING", "POWERING_OFF", "TERMINATING", "SUSPENDING", "STOPPING", "UNDEPLOYING", "MIGRATING")
    matrix.ask("HELD", "PENDING", "RUNNING", "SUSPENDED", "STOPPED", "POWERED_OFF", "UNDEPLOYED")
    _fail_and_ask(matrix)
    matrix.until(matrix.ids("UNKNOWN"), "UNKNOWN")
    matrix.ask("UNKNOWN")
    matrix.command("speak")
    stack.moln("host", "enable", "sim-5")
    matrix.collect()
    return matrix


def _bring_to_rest(matrix: Matrix, closed: int) -> None:
    matrix.create("HELD", simulated(), is_held=True)
    matrix.create("PENDING", simulated(), host_id=closed)
    run = ("RUNNING", "SUSPENDING", "SUSPENDED", "STOPPING", "STOPPED", "POWERED_OFF", "UNDEPLOYING", "UNDEPLOYED")
    for state in (*run, "MIGRATING"):
        matrix.create(state, simulated())
    for state in ("POWERING_OFF", "TERMINATING"):
        matrix.create(state, simulated(sim_stop_latency_s=HOLD_SECONDS))
    matrix.until(matrix.ids(*run, "MIGRATING", "POWERING_OFF", "TERMINATING"), "RUNNING")
    matrix.begin(Verb.SUSPEND, "SUSPENDED", "STOPPING")
    matrix.begin(Verb.POWEROFF, "POWERED_OFF", "UNDEPLOYING")
    matrix.begin(Verb.STOP, "STOPPED")
    matrix.begin(Verb.UNDEPLOY, "UNDEPLOYED")
    matrix.until(matrix.ids("SUSPENDED", "STOPPING"), "SUSPENDED")
    matrix.until(matrix.ids("POWERED_OFF", "UNDEPLOYING"), "POWERED_OFF")
    matrix.until(matrix.ids("STOPPED"), "STOPPED")
    matrix.until(matrix.ids("UNDEPLOYED"), "UNDEPLOYED")
    matrix.take_snapshots("RUNNING", "POWERED_OFF", "SUSPENDED")


def _bring_to_pass(matrix: Matrix) -> None:
    """Into states that pass by themselves, which takes long now."""
    matrix.command("set", "deed_latency_s", HOLD_SECONDS)
    matrix.create("STARTING", simulated(sim_start_latency_s=HOLD_SECONDS))
    matrix.begin(Verb.POWEROFF, "POWERING_OFF", is_soft=True)
    matrix.begin(Verb.TERMINATE, "TERMINATING", is_soft=True)
    matrix.begin(Verb.SUSPEND, "SUSPENDING")
    matrix.begin(Verb.STOP, "STOPPING")
    matrix.begin(Verb.UNDEPLOY, "UNDEPLOYING")
    matrix.begin(Verb.MIGRATE, "MIGRATING")
    for state in ("STARTING", "POWERING_OFF", "TERMINATING", "SUSPENDING", "STOPPING", "UNDEPLOYING", "MIGRATING"):
        matrix.until(matrix.ids(state), state)
    matrix.command("set", "deed_latency_s", "0")


def _fail_and_ask(matrix: Matrix) -> None:
    """Starts fail until everything has been asked of those that failed."""
    matrix.command("set", "start_failure_rate", "1")
    matrix.create("FAILED", simulated(), host_id=matrix.host_id)  # on a host that was asked for it is tried for ever
    for vm_id in matrix.ids("FAILED"):
        eventually_sync(partial(_has_failed_often, matrix.calls, vm_id), what=f"VM {vm_id} fails")
    matrix.ask("FAILED")
    matrix.command("set", "start_failure_rate", "0")


def _has_failed_often(calls: VerbCalls, vm_id: int) -> bool:
    vm = calls.get(vm_id)
    attempts = max((status.attempt for status in vm.statuses), default=0)
    return vm.view.state == vm_pb2.VM_STATE_FAILED and attempts >= FEW_STARTS


def check_refused(matrix: Matrix, state: str, verb: Verb) -> None:
    """By the state, with the words that a user needs."""
    failure = matrix.cells[state, verb].failure
    assert failure is not None, f"{verb} is done in {state}"
    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "STATE_FORBIDS"), failure.message
    names = sorted(map(state_name, VERBS[verb].allowed))
    assert f"it is {state}; {verb} is allowed in {', '.join(names)}" in failure.message
    assert {"state": state, "allowed": ", ".join(names)}.items() <= failure.metadata.items()


def check_done(matrix: Matrix, state: str, verb: Verb) -> None:
    """It was, and the VM is what the table says."""
    cell = matrix.cells[state, verb]
    if (state, verb) in NO_GUEST_YET:
        assert cell.failure is not None
        assert (cell.failure.reason, "its console opens once the guest runs" in cell.failure.message) == (
            "STATE_FORBIDS",
            True,
        )
        return
    assert cell.failure is None, cell.failure
    assert cell.problem == ""
    assert cell.before is not None
    assert cell.after is not None
    assert cell.after.view.state == reached(verb, state)
    if VERBS[verb].operation and cell.before.placement.host_id:
        assert cell.operation is not None
        assert (cell.operation.is_done, cell.operation.reason) == (True, ""), cell.operation
    if verb in EFFECTS:
        assert EFFECTS[verb](cell.before, cell.after), cell.after


@pytest.mark.parametrize("state", ON_SIM)
@pytest.mark.parametrize("verb", VERBS)
def test_on_simulated_hosts_a_verb_does_what_the_table_says(on_sim: Matrix, verb: Verb, state: str) -> None:
    if verb in allowed_in(state):
        (check_incapable if verb in NOT_SIMULATED else check_done)(on_sim, state, verb)
    else:
        check_refused(on_sim, state, verb)


def test_every_state_is_in_the_matrix() -> None:
    assert {state_of(state) for state in ON_SIM} | {vm_pb2.VM_STATE_UNSPECIFIED, vm_pb2.VM_STATE_DONE} == set(
        vm_pb2.VmState.values()
    )


@pytest.mark.parametrize("state", ["RUNNING", "POWERED_OFF", "SUSPENDED"])
@pytest.mark.parametrize("verb", [verb for verb, row in VERBS.items() if row.operation])
def test_with_a_host_an_operation_is_one_and_without_it_is_done_at_once(on_sim: Matrix, verb: Verb, state: str) -> None:
    if verb not in allowed_in(state) or verb in NOT_SIMULATED:
        return
    assert on_sim.cells[state, verb].operation is not None
    for hostless in ("HELD", "PENDING", "STOPPED", "UNDEPLOYED"):
        if verb in allowed_in(hostless):
            assert on_sim.cells[hostless, verb].operation is None


@pytest.fixture(scope="module")
def on_test(stack: Stack, calls: VerbCalls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    """The matrix on libvirt's test hypervisor. Its guests live in the agent's process, which is stopped for UNKNOWN."""
    words = ("--driver", "libvirt", "--uri", "test:///default")
    machine = Machine(stack, tmp_path_factory.mktemp("machines"), "pretender", driver=words)
    try:
        machine.start()
        yield _ask_pretender(stack, calls, machine)
    finally:
        machine.close()


def _ask_pretender(stack: Stack, calls: VerbCalls, machine: Machine) -> Matrix:
    matrix = Matrix(stack, calls, machine.host_id, impossible=CANNOT)
    shape = VmTemplate(cpu_percent=1, memory_mib=16, no_default_network=True, requirement='NAME = "pretender"')
    for state in ON_TEST:
        matrix.create(state, shape, is_held=state == "HELD")
    matrix.until(matrix.ids("RUNNING", "SUSPENDED", "POWERED_OFF", "UNKNOWN"), "RUNNING")
    matrix.begin(Verb.SUSPEND, "SUSPENDED")
    matrix.begin(Verb.POWEROFF, "POWERED_OFF")
    matrix.until(matrix.ids("SUSPENDED"), "SUSPENDED")
    matrix.until(matrix.ids("POWERED_OFF"), "POWERED_OFF")
    matrix.ask("HELD", "RUNNING", "SUSPENDED", "POWERED_OFF")
    matrix.collect()
    machine.signal(signal.SIGSTOP)
    matrix.until(matrix.ids("UNKNOWN"), "UNKNOWN")
    matrix.ask("UNKNOWN")
    machine.signal(signal.SIGCONT)
    matrix.collect()
    return matrix


@pytest.mark.parametrize("state", ON_TEST)
@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb is not Verb.CONSOLE])
def test_on_the_test_hypervisor_too_and_what_it_cannot_do_is_refused(on_test: Matrix, verb: Verb, state: str) -> None:
    if verb not in allowed_in(state):
        check_refused(on_test, state, verb)
    elif verb in CANNOT and state != "HELD":
        check_incapable(on_test, state, verb)
    elif verb not in CANNOT:
        check_done(on_test, state, verb)


def check_incapable(matrix: Matrix, state: str, verb: Verb) -> None:
    """By the capability that the host lacks."""
    failure = matrix.cells[state, verb].failure
    assert failure is not None, f"{verb} in {state} is taken on by a host that cannot do it"
    assert (failure.code, failure.reason) == (grpc.StatusCode.UNIMPLEMENTED, "CAPABILITY"), failure.message
    assert failure.metadata["capability"] == VERBS[verb].capability
