"""VMs chosen by name or filter, asked for something several at a time, and waited for."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import click
from google.protobuf.message import Message

from moln.compute.v1.vm_pb2 import Vm, VmState
from services.cli.client import Client
from services.cli.exits import CliError, Exit, usage
from services.cli.resources.vms import VMS, state_of
from services.cli.waiting import wait_for_all

WAIT_SECONDS = 120.0
AT_A_TIME = 16
_PREFIX = "VM_STATE_"
WAITABLE = {
    name.removeprefix(_PREFIX).lower().replace("_", "-"): cast(VmState, number)
    for name, number in VmState.items()
    if number
}
"""States by the words that are typed for them."""


def chosen(client: Client, names: Sequence[str], condition: str) -> Sequence[Vm]:
    """The VMs that the user named, or that meet the filter."""
    if bool(names) == bool(condition):
        raise usage("name the VMs, or choose them with --filter" + (" (not both)" if names else ""))
    found = tuple(VMS.list(client, condition)) if condition else VMS.find_all(client, names)
    if not found:
        raise CliError(f"no VM meets '{condition}'", Exit.NOT_FOUND)
    return found


def act(client: Client, method: str, requests: Sequence[Message], vms: Sequence[Vm], done: str = "") -> list[Vm]:
    """Asks for each, several at a time; one that is refused does not keep the others from it.

    Says of each in which state it is, or `done`. Returns the VMs as they are after it.
    """

    def ask(request: Message, vm: Vm) -> Vm | CliError:
        try:
            return client.unary(VMS.path(method), request, Vm)
        except CliError as err:
            return CliError(naming(vm, err.message), err.code, reason=err.reason)

    errors: list[CliError] = []
    changed: list[Vm] = []
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        for after in pool.map(ask, requests, vms):
            if isinstance(after, CliError):
                errors.append(after)
            else:
                changed.append(after)
                click.echo(f"{VMS.title(after)} {done or f'is {state_of(after)}'}")
    if errors:
        raise CliError("\nmoln: ".join(error.message for error in errors), errors[0].code, reason=errors[0].reason)
    return changed


def naming(vm: Vm, message: str) -> str:
    """What is wrong with a VM; one that the message names by its name alone is named by its id too, and only once."""
    known, title = f"VM {vm.spec.name}:", VMS.title(vm)
    return message.replace(known, f"{title}:", 1) if known in message else f"{title}: {message}"


def wait_if(client: Client, vms: Sequence[Vm], state: VmState, seconds: float) -> None:
    """Waits, where there are seconds to wait, and says that all are there."""
    if not seconds:
        return
    after = wait_for_all(client, vms, state, seconds)
    word = VmState.Name(state).removeprefix(_PREFIX)
    click.echo(f"{VMS.title(after[0])} is {word}" if len(after) == 1 else f"all {len(after)} are {word}")


def named(vms: Sequence[Vm]) -> str:
    """The VMs in a question."""
    if len(vms) > 5:
        return f"{len(vms)} VMs, from {VMS.title(vms[0])} to {VMS.title(vms[-1])}"
    return ", ".join(VMS.title(vm) for vm in vms)
