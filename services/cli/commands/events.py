"""`moln events`: what happened in the cloud."""

from __future__ import annotations

import time
from collections.abc import Iterator

import click

from moln.operations.v1.operations_service_pb2 import (
    Event,
    ListEventsRequest,
    ListEventsResponse,
    WatchEventsRequest,
    WatchEventsResponse,
)
from services.cli.client import Client
from services.cli.command_line import Command
from services.cli.documents import as_text, json_text, plain, yaml_text
from services.cli.exits import CliError, Exit
from services.cli.options import filter_option
from services.cli.printing import print_document
from services.cli.session import Session
from services.cli.sizes import clock
from services.cli.tables import Column, plain_line, print_table

SERVICE = "/moln.operations.v1.OperationsService/"
PAGE = 1000
RETRY_SECONDS = 1.0


def _change(event: Event) -> str:
    return f"{getattr(event, 'from') or '·'} → {event.to or '·'}"


def _what(event: Event) -> str:
    return f"{event.kind} {event.name} ({event.id})" if event.id else event.kind


COLUMNS: tuple[Column[Event], ...] = (
    Column("TIME", lambda event: clock(event.time)),
    Column("WHAT", _what),
    Column("CHANGE", _change),
    Column("REASON", lambda event: event.reason),
    Column("BY", lambda event: event.cause.actor),
    Column("MESSAGE", lambda event: event.message),
)
WIDTHS = (19, 24, 24, 18, 12, 0)


@click.command(
    "events",
    cls=Command,
    examples="""
    moln events
    moln events --filter 'kind=vm to=FAILED' --last 100
    moln events --watch
    moln events --watch -o json | jq -c .
    """,
)
@filter_option("kind=vm id=12 to=FAILED")
@click.option("--last", "-n", type=click.IntRange(1, 10_000), default=50, show_default=True, help="How many.")
@click.option("--watch", "-w", is_flag=True, help="Stay and show what happens; end with Ctrl-C.")
@click.option("--output", "-o", type=click.Choice(("table", "json", "yaml")), default="table", show_default=True)
@click.pass_obj
def command(session: Session, condition: str, last: int, watch: bool, output: str) -> None:
    """Shows what happened, oldest first."""
    request = ListEventsRequest(page_size=last, filter=condition, is_newest=True)
    answer = session.client.unary(f"{SERVICE}ListEvents", request, ListEventsResponse)
    if not watch:
        if output == "table":
            print_table(COLUMNS, answer.events)
        else:
            print_document(list(answer.events), output)
        return
    if output == "table":
        click.echo(plain_line(COLUMNS, [column.title for column in COLUMNS], WIDTHS))
    for event in answer.events:
        _print(event, output)
    try:
        for event in _watched(session.client, answer.next_revision, condition):
            _print(event, output)
    except KeyboardInterrupt:
        return


def _watched(client: Client, revision: int, condition: str) -> Iterator[Event]:
    """Events from a revision on, through lost connections."""
    is_lost = False
    while True:
        try:
            request = WatchEventsRequest(from_revision=revision, filter=condition)
            for answer in client.stream(f"{SERVICE}WatchEvents", request, WatchEventsResponse):
                is_lost = False
                yield from answer.events
                revision = answer.next_revision
        except CliError as err:
            if err.code is not Exit.UNREACHABLE:
                raise
            if not is_lost:
                click.echo(f"moln: {err.message}; still trying", err=True)
            is_lost = True
            time.sleep(RETRY_SECONDS)


def _print(event: Event, output: str) -> None:
    match output:
        case "json":
            click.echo(json_text(plain(event), indent=None))
        case "yaml":
            click.echo("---\n" + yaml_text(plain(event, as_text)).rstrip())
        case _:
            click.echo(plain_line(COLUMNS, [column.value(event) or "-" for column in COLUMNS], WIDTHS))
