"""`moln vm import`: a guest that moln did not create becomes a VM."""

from __future__ import annotations

import click

from moln.compute.v1.vm_pb2 import Vm, VmState
from moln.compute.v1.vm_service_pb2 import ImportVmRequest
from services.cli.command_line import Command
from services.cli.options import SECONDS, Name
from services.cli.resources.hosts import HOSTS
from services.cli.resources.vms import VMS, state_of
from services.cli.session import Session
from services.cli.vm_acting import WAIT_SECONDS, wait_if

ANSWER_SECONDS = 90.0


@click.command(
    "import",
    cls=Command,
    examples="""
    moln vm import node-1 legacy-db
    moln vm import node-1 5f1c2f1e-6d2b-4a53-9f44-0f6d1d1f9a10 --name db --wait
    """,
)
@click.argument("host", type=Name("host"))
@click.argument("guest")
@click.option("--name", default="", help="Name of the VM (default: the guest's).")
@click.option("--wait", is_flag=True, help="Return when it is RUNNING.")
@click.option("--timeout", type=SECONDS, default=WAIT_SECONDS, metavar="TIME", help="How long (default 2m).")
@click.pass_obj
def import_(session: Session, host: str, guest: str, name: str, wait: bool, timeout: float) -> None:
    """Takes over a guest that runs on a host, by its name or UUID, as it is. Its disks, interfaces and definition stay
    yours: terminating the VM shuts the guest down and leaves them."""
    request = ImportVmRequest(host_id=HOSTS.id_of(session.client, host), guest=guest, name=name)
    vm = session.client.unary(VMS.path("ImportVm"), request, Vm, seconds=ANSWER_SECONDS)
    click.echo(f"{VMS.title(vm)} is {state_of(vm)}")
    wait_if(session.client, [vm], VmState.VM_STATE_RUNNING, timeout if wait else 0)


COMMANDS = (import_,)
