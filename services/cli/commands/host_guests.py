"""`moln host guests`: guests on a host that moln did not create."""

from __future__ import annotations

import click

from moln.compute.v1.host_pb2 import ForeignGuest
from moln.compute.v1.host_service_pb2 import ListHostGuestsRequest, ListHostGuestsResponse
from services.cli.command_line import Command
from services.cli.options import Name, output_option
from services.cli.printing import print_document
from services.cli.resources.hosts import HOSTS
from services.cli.session import Session
from services.cli.tables import Column, print_table

ANSWER_SECONDS = 90.0
COLUMNS: tuple[Column[ForeignGuest], ...] = (
    Column("NAME", lambda guest: guest.name),
    Column("UUID", lambda guest: guest.uuid),
    Column("STATE", lambda guest: guest.state),
    Column("VCPUS", lambda guest: str(guest.vcpus), is_number=True),
    Column("MEMORY", lambda guest: f"{guest.memory_mib}M", is_number=True),
    Column("DISKS", lambda guest: ", ".join(f"{disk.target}={disk.source or '-'}" for disk in guest.disks)),
    Column("NICS", lambda guest: ", ".join(f"{nic.mac}@{nic.source}" for nic in guest.nics)),
)


@click.command(
    "guests",
    cls=Command,
    examples="""
    moln host guests node-1
    moln host guests node-1 -o json | jq -r '.guests[].name'
    """,
)
@click.argument("host", type=Name("host"))
@output_option(("text", "json", "yaml"))
@click.pass_obj
def guests(session: Session, host: str, output: str) -> None:
    """Lists the guests on a host's hypervisor that moln did not create. Nothing is done to them."""
    request = ListHostGuestsRequest(id=HOSTS.id_of(session.client, host))
    answer = session.client.unary(HOSTS.path("ListHostGuests"), request, ListHostGuestsResponse, seconds=ANSWER_SECONDS)
    if output != "text":
        print_document(answer, output)
    elif answer.guests:
        print_table(COLUMNS, answer.guests)
    else:
        click.echo(f"host {host} has no guests but moln's own", err=True)
    if answer.is_truncated:
        click.echo(f"only the first {len(answer.guests)} are shown", err=True)


COMMANDS = (guests,)
