"""Prints objects in the form that `-o` asks for. Decides nothing about them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import click
from google.protobuf.message import Message

from services.cli.documents import as_text, json_text, plain, yaml_text
from services.cli.objects import Resource, handles
from services.cli.session import Session
from services.cli.tables import print_table, visible

M = TypeVar("M", bound=Message)


def list_objects(session: Session, resource: Resource[M], *, output: str, condition: str = "", watch: bool) -> None:
    """`moln <kind> list`."""
    if watch:
        from services.cli.watching import follow

        follow(session.client, resource, condition, output)
        return
    print_objects(resource, list(resource.list(session.client, condition)), output)


def print_objects(resource: Resource[M], items: Sequence[M], output: str) -> None:
    """Prints a list."""
    match output:
        case "json" | "yaml":
            print_document(items, output)
        case "name":
            for handle in handles(resource, items):
                click.echo(handle)
        case _:
            print_table(visible(resource.columns, is_wide=output == "wide"), items)


def print_document(content: Message | Sequence[Message], output: str) -> None:
    """Prints messages as JSON or YAML."""
    convert = as_text if output == "yaml" else None
    document = _plain(content, convert) if isinstance(content, Message) else [_plain(item, convert) for item in content]
    click.echo(yaml_text(document).rstrip() if output == "yaml" else json_text(document))


def print_object(resource: Resource[M], item: M, output: str, lines: Iterable[str]) -> None:
    """Prints one object; `lines` are its text for people."""
    match output:
        case "json" | "yaml":
            print_document(item, output)
        case "name":
            click.echo(handles(resource, [item])[0])
        case _:
            for line in lines:
                click.echo(line)


def fields(pairs: Iterable[tuple[str, object]], *, indent: str = "") -> list[str]:
    """Aligned lines of names and values; what is empty is left out."""
    shown = [(name, str(value)) for name, value in pairs if value not in ("", None, 0)]
    width = max((len(name) for name, _ in shown), default=0)
    return [f"{indent}{name:<{width}}  {value}" for name, value in shown]


def section(title: str, lines: Sequence[str]) -> list[str]:
    """Lines under a title; nothing where there are none."""
    return ["", title, *(f"  {line}" for line in lines)] if lines else []


def _plain(message: Message, convert: Any) -> Any:
    return plain(message, convert) if convert else plain(message)
