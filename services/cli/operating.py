"""Operations on VMs as commands ask for them: one or several, followed to their end where that is wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import click
from google.protobuf.message import Message

from moln.compute.v1 import vm_service_pb2 as pb
from moln.compute.v1.vm_pb2 import OperationKind, Vm
from services.cli.exits import CliError
from services.cli.moments import duration
from services.cli.options import SECONDS, Name
from services.cli.resources.vms import VMS
from services.cli.session import Session

F = TypeVar("F", bound=Callable[..., Any])
WAIT_SECONDS = 600.0
GRACE_SECONDS = 10.0
_PREFIX = "OPERATION_KIND_"


def wait_options(function: F) -> F:
    """`--wait`, `--timeout`."""
    for option in (
        click.option("--timeout", type=SECONDS, default=WAIT_SECONDS, metavar="TIME", help="How long (default 10m)."),
        click.option("--wait", is_flag=True, help="Return when it has ended; exits 1 where it failed."),
    ):
        function = option(function)
    return function


def one_vm(function: F) -> F:
    """A VM, and whether to wait."""
    return wait_options(click.argument("vm", type=Name("vm"))(function))


def ask(session: Session, vm: str, method: str, build: Callable[[Vm], Message], flags: dict[str, Any]) -> Vm:
    """Asks for an operation on one VM and, with --wait, for its end."""
    found = VMS.find(session.client, vm)
    after = session.client.unary(VMS.path(method), build(found), Vm)
    follow(session, [after], flags)
    return after


def follow(session: Session, vms: Sequence[Vm], flags: dict[str, Any]) -> None:
    """Says what was asked for and, with --wait, how it ended. Raises CliError naming those that failed."""
    failures: list[str] = []
    for vm in vms:
        slot = _newest(vm)
        if slot is None:
            click.echo(f"{VMS.title(vm)} is changed")
        elif not flags["wait"]:
            click.echo(f"{VMS.title(vm)}: {word_of(slot.kind)} is asked for ({slot.id})")
        else:
            outcome = ended(session, vm, slot.id, flags["timeout"])
            if outcome.reason:
                failures.append(f"{VMS.title(vm)}: {word_of(outcome.kind)} failed: {outcome.reason}: {outcome.message}")
            else:
                results = results_of(session, vm, outcome)
                click.echo(f"{VMS.title(vm)}: {word_of(outcome.kind)} is done" + (f" ({results})" if results else ""))
    if failures:
        raise CliError("\nmoln: ".join(failures))


def _newest(vm: Vm) -> Any:
    slots = [slot for slot in (vm.intent.operation, vm.intent.background) if slot.id]
    return max(slots, key=lambda slot: slot.create_time.ToNanoseconds(), default=None)


def ended(session: Session, vm: Vm, operation_id: str, seconds: float) -> pb.VmOperation:
    """The operation once it has ended."""
    request = pb.WaitVmOperationRequest(id=vm.id, operation_id=operation_id, timeout=duration(seconds))
    return session.client.unary(VMS.path("WaitVmOperation"), request, pb.VmOperation, seconds=seconds + GRACE_SECONDS)


def word_of(kind: int) -> str:
    """`attach disk`."""
    return OperationKind.Name(cast(OperationKind, kind)).removeprefix(_PREFIX).replace("_", " ").lower()


def results_of(session: Session, vm: Vm, operation: pb.VmOperation) -> str:
    """`host node-2`, `image golden`: what came of it by names, as far as those are known."""
    return ", ".join(_result(session, vm, name, value) for name, value in sorted(operation.results.items()))


def _result(session: Session, vm: Vm, name: str, value: str) -> str:
    what = name.removesuffix("_id").replace("_", " ")
    if name == "host_id":
        now = VMS.find(session.client, str(vm.id)).view
        return f"{what} {now.host}" if str(now.host_id) == value else f"{what} {value}"
    asked = vm.intent.background.parameters.image_name
    return f"{what} {asked} ({value})" if name == "image_id" and asked else f"{what} {value}"
