"""`moln vm history`: where a VM was, when, and why."""

from __future__ import annotations

from collections.abc import Iterator

import click

from moln.operations.v1.operations_service_pb2 import Event, GetVmHistoryRequest, HostStay, VmHistory
from services.cli.command_line import Command
from services.cli.options import Name
from services.cli.printing import print_document, section
from services.cli.resources.vms import VMS
from services.cli.session import Session
from services.cli.sizes import clock
from services.cli.tables import Column, plain_lines

GET = "/moln.operations.v1.OperationsService/GetVmHistory"


def _span(seconds: float) -> str:
    if not seconds:
        return ""
    for limit, divisor, unit in ((120, 1, "s"), (7200, 60, "m"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / divisor:.0f}{unit}"
    return f"{seconds / 86400:.1f}d"


STAYS: tuple[Column[HostStay], ...] = (
    Column("HOST", lambda stay: stay.host or f"host {stay.host_id}, gone"),
    Column("FROM", lambda stay: clock(stay.start_time)),
    Column("UNTIL", lambda stay: clock(stay.end_time) if stay.HasField("end_time") else "now"),
    Column("RAN", lambda stay: _span(stay.running_seconds), is_number=True),
    Column("UNKNOWN", lambda stay: _span(stay.unknown_seconds), is_number=True),
    Column("STATE", lambda stay: stay.last_state),
    Column("CAME BY", lambda stay: _cause(stay.start_cause.actor, stay.start_reason)),
    Column("LEFT BY", lambda stay: _cause(stay.end_cause.actor, stay.end_reason)),
)
TRANSITIONS: tuple[Column[Event], ...] = (
    Column("TIME", lambda event: clock(event.time)),
    Column("CHANGE", lambda event: f"{getattr(event, 'from') or '·'} → {event.to or '·'}"),
    Column("REASON", lambda event: event.reason),
    Column("BY", lambda event: event.cause.actor),
    Column("MESSAGE", lambda event: event.message),
)


def _cause(actor: str, reason: str) -> str:
    return " ".join(word for word in (actor, reason) if word)


@click.command(
    "history",
    cls=Command,
    examples="""
    moln vm history web
    moln vm history 12 -o json
    """,
)
@click.argument("vm", type=Name("vm"))
@click.option("--output", "-o", type=click.Choice(("text", "json", "yaml")), default="text", show_default=True)
@click.pass_obj
def command(session: Session, vm: str, output: str) -> None:
    """Shows every host that a VM was on, with times and causes, and its changes of state.

    A VM that is gone has a history too: name it by its id.
    """
    request = GetVmHistoryRequest(id=VMS.id_of(session.client, vm))
    found = session.client.unary(GET, request, VmHistory)
    if output != "text":
        print_document(found, output)
        return
    for line in lines(found):
        click.echo(line)


def lines(found: VmHistory) -> Iterator[str]:
    """The history in words."""
    yield f"VM {found.name} ({found.id})"
    if found.is_cut:
        yield "the history here begins after the VM was created: what was before is not known"
    yield from section("Hosts", plain_lines(STAYS, found.stays)) if found.stays else ["", "It was on no host."]
    yield from section("Changes", plain_lines(TRANSITIONS, found.transitions))
    yield from section("Not known", [f"until {clock(gap.time)}: {gap.message}" for gap in found.gaps])


COMMANDS = (command,)
