"""`moln vm poweroff|resume|terminate|hold|release|wait|update`: what changes the state of VMs, and waits for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

import click
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from moln.compute.v1.vm_pb2 import Vm, VmState
from moln.compute.v1.vm_service_pb2 import (
    HoldVmRequest,
    PoweroffVmRequest,
    ReleaseVmRequest,
    ResumeVmRequest,
    TerminateVmRequest,
    UpdateVmRequest,
)
from services.cli.client import Client
from services.cli.command_line import Command
from services.cli.exits import CliError, Exit, usage
from services.cli.options import KEY_VALUE, SECONDS, Name, confirm, filter_option, yes_option
from services.cli.resources.vms import VMS, state_of
from services.cli.session import Session
from services.cli.waiting import wait_for_all

F = TypeVar("F", bound=Callable[..., Any])
WAIT_SECONDS = 120.0
AT_A_TIME = 16
_PREFIX = "VM_STATE_"
_WAITABLE = {
    name.removeprefix(_PREFIX).lower().replace("_", "-"): cast(VmState, number)
    for name, number in VmState.items()
    if number
}


def _verb_options(function: F) -> F:
    for option in (
        click.option("--timeout", type=SECONDS, default=WAIT_SECONDS, metavar="TIME", help="How long (default 2m)."),
        click.option("--wait", is_flag=True, help="Return when it is done."),
        filter_option("instead of names: label.tier=front"),
        click.argument("vms", type=Name("vm"), nargs=-1),
    ):
        function = option(function)
    return function


@click.command(
    "poweroff",
    cls=Command,
    examples="""
    moln vm poweroff web
    moln vm poweroff web db --hard --wait
    """,
)
@_verb_options
@click.option("--hard", is_flag=True, help="Pull the plug instead of asking the guest.")
@click.pass_obj
def poweroff(session: Session, vms: Sequence[str], condition: str, wait: bool, timeout: float, hard: bool) -> None:
    """Shuts guests down; host, addresses and disks stay reserved."""
    found = _chosen(session.client, vms, condition)
    _act(session.client, "PoweroffVm", [PoweroffVmRequest(id=vm.id, is_hard=hard) for vm in found], found)
    _wait_if(session.client, found, VmState.VM_STATE_POWERED_OFF, timeout if wait else 0)


@click.command(
    "resume",
    cls=Command,
    examples="""
    moln vm resume web --wait
    """,
)
@_verb_options
@click.pass_obj
def resume(session: Session, vms: Sequence[str], condition: str, wait: bool, timeout: float) -> None:
    """Starts VMs again that are off."""
    found = _chosen(session.client, vms, condition)
    _act(session.client, "ResumeVm", [ResumeVmRequest(id=vm.id) for vm in found], found)
    _wait_if(session.client, found, VmState.VM_STATE_RUNNING, timeout if wait else 0)


@click.command(
    "terminate",
    cls=Command,
    examples="""
    moln vm terminate web
    moln vm terminate --filter 'label.tier=front' --hard --yes --wait
    """,
)
@_verb_options
@click.option("--hard", is_flag=True, help="Pull the plug instead of asking the guest first.")
@yes_option
@click.pass_obj
def terminate(
    session: Session, vms: Sequence[str], condition: str, wait: bool, timeout: float, hard: bool, yes: bool
) -> None:
    """Ends VMs for good: destroys the guests, erases their disks, gives back their addresses."""
    found = _chosen(session.client, vms, condition)
    confirm(f"Terminate {_named(found)}? Their disks are erased.", yes=yes)
    _act(session.client, "TerminateVm", [TerminateVmRequest(id=vm.id, is_hard=hard) for vm in found], found)
    _wait_if(session.client, found, VmState.VM_STATE_DONE, timeout if wait else 0)


@click.command(
    "hold",
    cls=Command,
    examples="""
    moln vm hold web
    """,
)
@_verb_options
@click.pass_obj
def hold(session: Session, vms: Sequence[str], condition: str, wait: bool, timeout: float) -> None:
    """Holds pending VMs: they are not placed until released."""
    found = _chosen(session.client, vms, condition)
    _act(session.client, "HoldVm", [HoldVmRequest(id=vm.id) for vm in found], found)
    _wait_if(session.client, found, VmState.VM_STATE_HELD, timeout if wait else 0)


@click.command(
    "release",
    cls=Command,
    examples="""
    moln vm release web --wait
    """,
)
@_verb_options
@click.pass_obj
def release(session: Session, vms: Sequence[str], condition: str, wait: bool, timeout: float) -> None:
    """Releases held VMs to be placed."""
    found = _chosen(session.client, vms, condition)
    _act(session.client, "ReleaseVm", [ReleaseVmRequest(id=vm.id) for vm in found], found)
    _wait_if(session.client, found, VmState.VM_STATE_RUNNING, timeout if wait else 0)


@click.command(
    "wait",
    cls=Command,
    examples="""
    moln vm wait web
    moln vm wait web db --for powered-off --timeout 5m
    moln vm wait web --for done
    """,
)
@click.argument("vms", type=Name("vm"), nargs=-1)
@filter_option("instead of names: label.tier=front")
@click.option(
    "--for", "state", type=click.Choice(list(_WAITABLE), case_sensitive=False), default="running", help="State."
)
@click.option("--timeout", type=SECONDS, default=WAIT_SECONDS, metavar="TIME", help="How long (default 2m).")
@click.pass_obj
def wait(session: Session, vms: Sequence[str], condition: str, state: str, timeout: float) -> None:
    """Waits until VMs are in a state (default: running). Exits 3, with the reason, when time is up."""
    wanted = _WAITABLE[state]
    try:
        found = _chosen(session.client, vms, condition)
    except CliError as err:
        if err.code is Exit.NOT_FOUND and wanted == VmState.VM_STATE_DONE:
            click.echo(f"{' '.join(vms)}: gone")
            return
        raise
    for vm in wait_for_all(session.client, found, wanted, timeout):
        click.echo(f"{VMS.title(vm)} is {state.upper().replace('-', '_')}")


@click.command(
    "update",
    cls=Command,
    examples="""
    moln vm update web --name web-old
    moln vm update web --label tier=front --label zone=a
    """,
)
@click.argument("vm", type=Name("vm"))
@click.option("--name", help="New name.")
@click.option("--description", help="New description.")
@click.option("--label", type=KEY_VALUE, multiple=True, metavar="KEY=VALUE", help="Label to set; KEY= removes it.")
@click.pass_obj
def update(
    session: Session, vm: str, name: str | None, description: str | None, label: Sequence[tuple[str, str]]
) -> None:
    """Changes name, description or labels."""
    found = VMS.find(session.client, vm)
    request = UpdateVmRequest(id=found.id, spec=found.spec, etag=found.view.etag, update_mask=FieldMask())
    if name is not None:
        request.spec.name = name
        request.update_mask.paths.append("name")
    if description is not None:
        request.spec.template.description = description
        request.update_mask.paths.append("template.description")
    if label:
        _set_labels(request.spec.template.labels, label)
        request.update_mask.paths.append("template.labels")
    if not request.update_mask.paths:
        raise usage("nothing to change: give --name, --description or --label")
    click.echo(f"changed {VMS.title(session.client.unary(VMS.path('UpdateVm'), request, Vm))}")


def _set_labels(labels: Any, changes: Sequence[tuple[str, str]]) -> None:
    for key, value in changes:
        if value:
            labels[key] = value
        else:
            labels.pop(key, None)


def _chosen(client: Client, names: Sequence[str], condition: str) -> Sequence[Vm]:
    """The VMs that the user named, or that meet the filter."""
    if bool(names) == bool(condition):
        raise usage("name the VMs, or choose them with --filter" + (" (not both)" if names else ""))
    found = tuple(VMS.list(client, condition)) if condition else VMS.find_all(client, names)
    if not found:
        raise CliError(f"no VM meets '{condition}'", Exit.NOT_FOUND)
    return found


def _act(client: Client, method: str, requests: Sequence[Message], vms: Sequence[Vm]) -> None:
    """Asks for each, several at a time; one that is refused does not keep the others from it."""

    def ask(request: Message, vm: Vm) -> Vm | CliError:
        try:
            return client.unary(VMS.path(method), request, Vm)
        except CliError as err:
            return CliError(f"{VMS.title(vm)}: {err.message}", err.code, reason=err.reason)

    errors: list[CliError] = []
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        for after in pool.map(ask, requests, vms):
            if isinstance(after, CliError):
                errors.append(after)
            else:
                click.echo(f"{VMS.title(after)} is {state_of(after)}")
    if errors:
        raise CliError("\nmoln: ".join(error.message for error in errors), errors[0].code, reason=errors[0].reason)


def _wait_if(client: Client, vms: Sequence[Vm], state: VmState, seconds: float) -> None:
    if not seconds:
        return
    after = wait_for_all(client, vms, state, seconds)
    word = VmState.Name(state).removeprefix(_PREFIX)
    click.echo(f"{VMS.title(after[0])} is {word}" if len(after) == 1 else f"all {len(after)} are {word}")


def _named(vms: Sequence[Vm]) -> str:
    if len(vms) > 5:
        return f"{len(vms)} VMs, from {VMS.title(vms[0])} to {VMS.title(vms[-1])}"
    return ", ".join(VMS.title(vm) for vm in vms)


COMMANDS = (poweroff, resume, terminate, hold, release, wait, update)
