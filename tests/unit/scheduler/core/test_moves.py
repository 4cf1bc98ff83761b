"""Which step of a move comes next, which move is wished for, and between which hosts one is possible."""

from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from moln.compute.v1 import host_pb2, vm_pb2
from services.common.domain.reasons import Reason
from services.scheduler.core.hosts import HostFacts
from services.scheduler.core.moves import FETCHED, LONGEST_S, PREPARE_S, Moving, Step, mode_between, next_step, wish

LIVE, SAVE, COLD = vm_pb2.MOVE_MODE_LIVE, vm_pb2.MOVE_MODE_SAVE, vm_pb2.MOVE_MODE_COLD
PREPARE, GO, TRANSFER = vm_pb2.MOVE_PHASE_PREPARE, vm_pb2.MOVE_PHASE_GO, vm_pb2.MOVE_PHASE_TRANSFER
RUN, OFF = vm_pb2.DESIRED_STATE_RUNNING, vm_pb2.DESIRED_STATE_POWERED_OFF
MOVES = frozenset({"migrate_live", "migrate_save", "migrate_cold"})
BEGAN = 1000


def a_host(host_id: int, **words: object) -> HostFacts:
    return HostFacts(host_id, f"h{host_id}", capabilities=MOVES, **words)  # type: ignore[arg-type]


def status(
    epoch: int, phase: vm_pb2.VmPhase, *, reason: str = "", done: bool = False, **results: str
) -> vm_pb2.VmStatus:
    made = vm_pb2.VmStatus(epoch=epoch, phase=phase)
    if done:
        made.move.id, made.move.is_done, made.move.reason = "move", True, reason
        made.move.results.update(results)
    return made


def moving(
    phase: vm_pb2.MovePhase,
    how: vm_pb2.MoveMode = LIVE,
    *,
    source: vm_pb2.VmStatus | None = None,
    target: vm_pb2.VmStatus | None = None,
    source_host: HostFacts | None = a_host(1),  # noqa: B008  it is frozen
    target_host: HostFacts | None = a_host(2),  # noqa: B008
    asked: str = "op",
) -> Moving:
    intent = vm_pb2.VmIntent(desired=RUN, operation=vm_pb2.Operation(id=asked, kind=vm_pb2.OPERATION_KIND_MIGRATE))
    move = vm_pb2.Move(
        move_id="move",
        operation_id="op",
        target_host_id=2,
        epoch=8,
        phase=phase,
        how=how,
        time=Timestamp(seconds=BEGAN),
    )
    placement = vm_pb2.VmPlacement(host_id=1, epoch=7, move=move)
    return Moving(intent, placement, source, target, source_host, target_host)


RUNS = status(7, vm_pb2.VM_PHASE_RUNNING)
READY = status(8, vm_pb2.VM_PHASE_READY, done=True)
HANDED_OVER = status(7, vm_pb2.VM_PHASE_HANDED_OVER, done=True)
SILENT = a_host(2, is_connected=False)


def step(vm: Moving, now_s: float = BEGAN + 1) -> Step:
    return next_step(vm, now_s).step


def test_the_source_goes_when_the_target_is_ready() -> None:
    assert step(moving(PREPARE, source=RUNS)) is Step.NOTHING
    assert step(moving(PREPARE, source=RUNS, target=READY)) is Step.GO


def test_what_a_former_placement_said_counts_for_nothing() -> None:
    assert step(moving(PREPARE, target=status(6, vm_pb2.VM_PHASE_READY, done=True))) is Step.NOTHING


def test_a_live_move_switches_and_another_transfers_when_the_source_has_let_go() -> None:
    assert step(moving(GO, LIVE, source=HANDED_OVER)) is Step.SWITCH
    assert step(moving(GO, SAVE, source=HANDED_OVER)) is Step.TRANSFER
    assert step(moving(TRANSFER, SAVE, target=READY)) is Step.NOTHING
    fetched = status(8, vm_pb2.VM_PHASE_READY, done=True, **{FETCHED: "yes"})
    assert step(moving(TRANSFER, SAVE, target=fetched)) is Step.SWITCH


def test_a_guest_that_runs_at_the_target_is_there_whatever_the_source_says() -> None:
    assert step(moving(GO, LIVE, source=RUNS, target=status(8, vm_pb2.VM_PHASE_RUNNING))) is Step.SWITCH


def test_a_move_is_given_up_where_a_node_fails_or_is_lost_before_the_guest_has_gone() -> None:
    failed = status(8, vm_pb2.VM_PHASE_READY, done=True, reason="MIGRATION_FAILED")
    assert step(moving(PREPARE, target=failed)) is Step.ABORT
    assert step(moving(PREPARE, target_host=SILENT)) is Step.ABORT
    assert step(moving(PREPARE, source_host=None)) is Step.ABORT
    assert step(moving(GO, SAVE, target_host=SILENT)) is Step.ABORT
    assert step(moving(TRANSFER, SAVE, target=failed)) is Step.ABORT
    assert step(moving(PREPARE), BEGAN + PREPARE_S + 1) is Step.ABORT


def test_from_go_of_a_live_move_only_the_source_ends_it() -> None:
    assert step(moving(GO, LIVE, source=RUNS, target_host=SILENT)) is Step.NOTHING
    assert step(moving(GO, LIVE, source=RUNS, source_host=SILENT)) is Step.NOTHING
    assert step(moving(GO, LIVE, source=RUNS, asked="another")) is Step.CANCEL
    assert step(moving(GO, LIVE, source=RUNS), BEGAN + LONGEST_S + 1) is Step.CANCEL
    stays = status(7, vm_pb2.VM_PHASE_RUNNING, done=True, reason="OPERATION_CANCELLED")
    assert next_step(moving(GO, LIVE, source=stays), BEGAN).reason == Reason.OPERATION_CANCELLED


def test_a_source_that_is_fenced_has_let_nothing_go() -> None:
    fenced = a_host(1, is_connected=False, is_fenced=True)
    assert next_step(moving(GO, LIVE, source=RUNS, source_host=fenced), BEGAN).reason == Reason.HOST_FENCED


def wished(
    phase: vm_pb2.VmPhase = vm_pb2.VM_PHASE_RUNNING,
    *,
    mode: host_pb2.HostMode = host_pb2.HOST_MODE_ENABLED,
    asks: bool = True,
    asked: vm_pb2.MoveMode = vm_pb2.MOVE_MODE_UNSPECIFIED,
    observed: int = 3,
) -> tuple[vm_pb2.MoveMode, ...] | None:
    intent = vm_pb2.VmIntent(desired=RUN, generation=3)
    if asks:
        intent.operation.id, intent.operation.kind, intent.operation.epoch = "op", vm_pb2.OPERATION_KIND_MIGRATE, 7
        intent.operation.parameters.move.mode = asked
    found = wish(
        intent,
        vm_pb2.VmPlacement(host_id=1, epoch=7),
        vm_pb2.VmStatus(epoch=7, phase=phase, observed_generation=observed),
        a_host(1, mode=mode),
    )
    return found.modes if found is not None else None


def test_a_running_vm_goes_live_where_it_can_and_otherwise_with_its_memory() -> None:
    assert wished() == (LIVE, SAVE)
    assert wished(asked=COLD) == (COLD,)


def test_how_a_vm_at_rest_goes_follows_from_its_state() -> None:
    assert wished(vm_pb2.VM_PHASE_POWERED_OFF, asked=LIVE) == (COLD,)
    assert wished(vm_pb2.VM_PHASE_SUSPENDED) == (SAVE,)


@pytest.mark.parametrize("mode", [host_pb2.HOST_MODE_DRAINING, host_pb2.HOST_MODE_MAINTENANCE])
def test_a_host_that_is_emptied_needs_nobody_to_ask(mode: host_pb2.HostMode) -> None:
    assert wished(mode=mode, asks=False) == (LIVE, SAVE)
    assert wished(asks=False) is None


def test_a_vm_on_its_way_to_somewhere_else_waits() -> None:
    assert wished(vm_pb2.VM_PHASE_STARTING) is None
    assert wished(observed=2) is None


def test_hosts_have_to_be_of_one_kind_and_able_to() -> None:
    source = a_host(1, attributes={"ARCH": "x86_64"})
    assert mode_between((LIVE, SAVE), source, a_host(2, attributes={"ARCH": "x86_64"})) == LIVE
    assert mode_between((LIVE, SAVE), source, a_host(2, attributes={"ARCH": "aarch64"})) is None
    saver = HostFacts(3, "h3", attributes={"ARCH": "x86_64"}, capabilities=frozenset({"migrate_save"}))
    assert mode_between((LIVE, SAVE), source, saver) == SAVE
    assert mode_between((LIVE,), source, saver) is None


@pytest.mark.parametrize(("asked_before_the_move", "expected"), [(True, Step.NOTHING), (False, Step.ABORT)])
def test_a_hard_wish_of_before_the_move_is_carried_out_and_a_newer_one_ends_the_move(
    asked_before_the_move: bool, expected: Step
) -> None:
    vm = moving(PREPARE, COLD, source=status(7, vm_pb2.VM_PHASE_POWERED_OFF))
    vm.intent.desired, vm.intent.is_hard, vm.intent.generation = OFF, True, 5
    vm.placement.move.generation = 5 if asked_before_the_move else 4
    assert step(vm) is expected
