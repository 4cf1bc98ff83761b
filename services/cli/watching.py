"""Lists that stay: what changes is shown as it changes, through lost connections, until the user has seen enough."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import click
from google.protobuf.message import Message

from services.cli.client import Client
from services.cli.documents import as_text, json_text, plain, yaml_text
from services.cli.exits import CliError, Exit
from services.cli.objects import Resource, id_of
from services.cli.session import is_terminal
from services.cli.tables import plain_line, print_table, rich_table, visible

M = TypeVar("M", bound=Message)
POLL_SECONDS = 2.0
RETRY_SECONDS = 1.0
REDRAW_SECONDS = 1.0


@dataclass(frozen=True)
class Step(Generic[M]):
    """What changed at one time."""

    changed: Sequence[M]
    gone: Sequence[int]
    present: dict[int, M]
    """All that is there now, by id. Shared between steps: read it at once."""


def follow(client: Client, resource: Resource[M], condition: str, output: str) -> None:
    """Shows the list and its changes until interrupted."""
    steps = changes(client, resource, condition)
    try:
        if output in ("table", "wide") and is_terminal():
            _live(resource, steps, is_wide=output == "wide")
        else:
            _lines(resource, steps, output)
    except KeyboardInterrupt:
        return


def changes(client: Client, resource: Resource[M], condition: str = "") -> Iterator[Step[M]]:
    """The present objects, then each change; goes on for ever. A lost cloud is said once and dialled again."""
    is_lost = False
    present: dict[int, M] = {}
    is_streamed = resource.watch_request is not None and (resource.has_watch_filter or not condition)
    source = _streamed if is_streamed else _polled
    while True:
        try:
            for step in source(client, resource, condition, present):
                is_lost = False
                yield step
        except CliError as err:
            if err.code is not Exit.UNREACHABLE:
                raise
            if not is_lost:
                click.echo(f"moln: {err.message}; still trying", err=True)
            is_lost = True
            time.sleep(RETRY_SECONDS)


def _polled(client: Client, resource: Resource[M], condition: str, present: dict[int, M]) -> Iterator[Step[M]]:
    while True:
        yield _difference(present, {id_of(item): item for item in resource.list(client, condition)})
        time.sleep(POLL_SECONDS)


def _streamed(client: Client, resource: Resource[M], condition: str, present: dict[int, M]) -> Iterator[Step[M]]:
    """One watch after another, each from where the last one ended; from the start where that is too long ago."""
    revision = 0
    while True:
        try:
            for step, reached in _watched(client, resource, condition, present, revision):
                revision = max(revision, reached)
                yield step
        except CliError as err:
            if err.reason != "REVISION_GONE":
                raise
            revision = 0


def _watched(
    client: Client, resource: Resource[M], condition: str, present: dict[int, M], revision: int
) -> Iterator[tuple[Step[M], int]]:
    if resource.watch_request is None or resource.watch_reply is None:
        return
    settings = {"filter": condition} if condition else {}
    request = resource.watch_request(from_revision=revision, **settings)
    first: dict[int, M] | None = {} if revision == 0 else None
    path = resource.path(f"Watch{resource.message.DESCRIPTOR.name}s")
    for answer in client.stream(path, request, resource.watch_reply):
        message: Any = answer
        items: Sequence[M] = getattr(message, resource.items)
        if first is not None:
            first.update((id_of(item), item) for item in items)
            if not message.is_synced:
                continue
            step, first = _difference(present, first), None
        else:
            step = _applied(present, items)
        yield step, message.revision


def _difference(present: dict[int, M], fresh: dict[int, M]) -> Step[M]:
    changed = [item for number, item in sorted(fresh.items()) if present.get(number) != item]
    gone = [number for number in present if number not in fresh]
    present.clear()
    present.update(fresh)
    return Step(changed, gone, present)


def _applied(present: dict[int, M], items: Sequence[M]) -> Step[M]:
    """Objects without a spec are gone."""
    changed = [item for item in items if item.HasField("spec")]
    gone = [id_of(item) for item in items if not item.HasField("spec")]
    present.update((id_of(item), item) for item in changed)
    for number in gone:
        present.pop(number, None)
    return Step(changed, gone, present)


def _live(resource: Resource[M], steps: Iterator[Step[M]], *, is_wide: bool) -> None:
    """A table that is drawn anew in place: when something changes, and every second, since ages grow."""
    from rich.console import Console
    from rich.live import Live

    columns = visible(resource.columns, is_wide=is_wide)
    pictures = _in_background(steps)
    rows: list[M] = []
    with Live(console=Console(highlight=False), auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            with suppress(queue.Empty):
                found = pictures.get(timeout=REDRAW_SECONDS)
                if isinstance(found, CliError):
                    raise found
                rows = found
            live.update(rich_table(columns, rows), refresh=True)


def _in_background(steps: Iterator[Step[M]]) -> queue.SimpleQueue[list[M] | CliError]:
    """What there is after each step, in the order of ids; an error ends it."""
    pictures: queue.SimpleQueue[list[M] | CliError] = queue.SimpleQueue()

    def read() -> None:
        try:
            for step in steps:
                pictures.put([step.present[number] for number in sorted(step.present)])
        except CliError as err:
            pictures.put(err)

    threading.Thread(target=read, daemon=True).start()
    return pictures


def _lines(resource: Resource[M], steps: Iterator[Step[M]], output: str) -> None:
    """The list once, then a line or document for each change."""
    columns = visible(resource.columns, is_wide=output == "wide")
    widths = [len(column.title) for column in columns]
    for index, step in enumerate(steps):
        if output not in ("table", "wide"):
            _documents(resource, step, output)
        elif index == 0:
            print_table(columns, step.changed)
            cells = [[column.value(item) for column in columns] for item in step.changed]
            widths = [max([width, *(len(row[place]) for row in cells)]) for place, width in enumerate(widths)]
        else:
            for item in step.changed:
                click.echo(plain_line(columns, [column.value(item) or "-" for column in columns], widths))
            for number in step.gone:
                click.echo(f"{number} is gone")


def _documents(resource: Resource[M], step: Step[M], output: str) -> None:
    for item in step.changed:
        match output:
            case "json":
                click.echo(json_text(plain(item), indent=None))
            case "yaml":
                click.echo("---\n" + yaml_text(plain(item, as_text)).rstrip())
            case _:
                click.echo(resource.name_of(item))
    for number in step.gone:
        if output == "json":
            click.echo(json_text({"id": number, "is_gone": True}, indent=None))
        elif output == "yaml":
            click.echo("---\n" + yaml_text({"id": number, "is_gone": True}).rstrip())
