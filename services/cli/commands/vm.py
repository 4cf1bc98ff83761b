"""`moln vm`: virtual machines."""

from __future__ import annotations

import click

from moln.compute.v1.vm_pb2 import Vm
from moln.scheduler.v1.scheduler_service_pb2 import ExplainVmRequest, ExplainVmResponse
from services.cli.client import Client
from services.cli.command_line import Group
from services.cli.commands import (
    vm_create,
    vm_disk_snapshots,
    vm_history,
    vm_import,
    vm_inside,
    vm_look,
    vm_operations,
    vm_snapshots,
    vm_update,
    vm_verbs,
)
from services.cli.exits import CliError
from services.cli.options import Name, filter_option, list_options, output_option
from services.cli.printing import list_objects, print_object
from services.cli.resources.vms import VMS, state_of
from services.cli.session import Session
from services.cli.vm_text import vm_lines


@click.group("vm", cls=Group)
def command() -> None:
    """Virtual machines: create, list, change their state, look inside."""


@command.command(
    "list",
    examples="""
    moln vm list
    moln vm list --filter 'state=RUNNING label.tier=front' -o wide
    moln vm list --watch
    moln vm list -o json | jq '.[].view.ipv4'
    """,
)
@filter_option("state=RUNNING host=node-1 name=web* label.tier=front owner=anna")
@list_options
@click.pass_obj
def list_vms(session: Session, condition: str, output: str, watch: bool) -> None:
    """Shows the VMs that you may see."""
    list_objects(session, VMS, output=output, condition=condition, watch=watch)


@command.command(
    "show",
    examples="""
    moln vm show web
    moln vm show 12 -o yaml
    """,
)
@click.argument("vm", type=Name("vm"))
@output_option()
@click.pass_obj
def show_vm(session: Session, vm: str, output: str) -> None:
    """Shows one VM: its state and why, its disks, addresses and host."""
    found = VMS.find(session.client, vm)
    explanation = _explain(session.client, found) if output == "text" and state_of(found) == "PENDING" else None
    print_object(VMS, found, output, vm_lines(found, explanation))


def _explain(client: Client, vm: Vm) -> ExplainVmResponse | None:
    """What the scheduler says, where it says anything."""
    try:
        request = ExplainVmRequest(id=vm.id)
        return client.unary("/moln.scheduler.v1.SchedulerService/ExplainVm", request, ExplainVmResponse, seconds=3.0)
    except CliError:
        return None


for module in (
    vm_create, vm_import, vm_verbs, vm_operations, vm_snapshots, vm_disk_snapshots, vm_update, vm_inside, vm_look,
    vm_history,
):  # fmt: skip
    for added in module.COMMANDS:
        command.add_command(added)
