"""Options and arguments that several commands share, with completion of names from the running cloud."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from services.cli.exits import CliError, usage
from services.cli.session import Session, is_terminal
from services.cli.sizes import parse_mib, parse_seconds

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType  # generic for type checkers only, in some releases of click

F = TypeVar("F", bound=Callable[..., Any])
OUTPUTS = ("table", "wide", "json", "yaml", "name")
SHOW_OUTPUTS = ("text", "json", "yaml", "name")
_KINDS = {
    "vm": "vms:VMS", "template": "templates:TEMPLATES", "image": "images:IMAGES", "network": "networks:NETWORKS",
    "datastore": "images:DATASTORES", "host": "hosts:HOSTS", "cluster": "clusters:CLUSTERS", "user": "users:USERS",
}  # fmt: skip
COMPLETION_SECONDS = 3


class Name(_ParamType):
    """The name or id of an object of one kind, completed from the cloud."""

    name = "name"

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """How help writes it."""
        return self.kind.upper()

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Names and, where a digit was typed, ids. Silent where the cloud does not answer."""
        session = ctx.find_object(Session) or Session(os.environ)
        try:
            return self._candidates(session, incomplete)
        except (CliError, OSError):
            return []
        finally:
            session.close()

    def _candidates(self, session: Session, incomplete: str) -> list[CompletionItem]:
        from services.cli.objects import handles, id_of

        module, attribute = _KINDS[self.kind].split(":")
        resource = getattr(import_module(f"services.cli.resources.{module}"), attribute)
        items = list(resource.list(session.client))
        if incomplete[:1].isdigit():
            numbers = [CompletionItem(str(id_of(item)), help=resource.name_of(item)) for item in items]
            return [item for item in numbers if item.value.startswith(incomplete)]
        pairs = zip(handles(resource, items), items, strict=True)
        words = [CompletionItem(word, help=str(id_of(item))) for word, item in pairs]
        return [item for item in words if item.value.startswith(incomplete)]


class Parsed(_ParamType):
    """A value that a function parses, raising ValueError worded for the user."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As the function says."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as err:
            self.fail(str(err), param, ctx)


def _key_value(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise ValueError(f"'{text}' is not KEY=VALUE")
    return key, value


SIZE = Parsed("size", parse_mib)
SECONDS = Parsed("time", parse_seconds)
KEY_VALUE = Parsed("key=value", _key_value)


def list_options(function: F) -> F:
    """`-o`, `--watch`."""
    for option in (
        click.option("--watch", "-w", is_flag=True, help="Stay and show what changes; end with Ctrl-C."),
        output_option(OUTPUTS),
    ):
        function = option(function)
    return function


def filter_option(example: str) -> Callable[[F], F]:
    """`--filter`."""
    return click.option(
        "--filter",
        "-f",
        "condition",
        default="",
        metavar="KEY=VALUE …",
        help=f"Only those for which all holds: {example}.",
    )


def output_option(choices: tuple[str, ...] = SHOW_OUTPUTS) -> Callable[[F], F]:
    """`-o`; the first choice is the default."""
    return click.option(
        "--output", "-o", type=click.Choice(choices), default=choices[0], show_default=True, help="How to print."
    )


def yes_option(function: F) -> F:
    """`--yes`."""
    return click.option("--yes", "-y", is_flag=True, help="Do not ask; needed where nobody can be asked.")(function)


def confirm(question: str, *, yes: bool) -> None:
    """Asks before something is destroyed. Raises CliError where the answer is no, or where nobody can be asked."""
    if yes:
        return
    if not sys.stdin.isatty() or not is_terminal():
        raise usage(f"{question} Nobody can be asked here: say --yes")
    if not click.confirm(question, err=True):
        raise CliError("nothing was done")


def file_bytes(path: str, what: str) -> bytes:
    """The content of a file of the caller, `-` for standard input. Raises CliError naming it."""
    try:
        if path == "-":
            return sys.stdin.buffer.read()
        return Path(path).expanduser().read_bytes()
    except OSError as err:
        raise usage(f"{what} {path} cannot be read: {err.strerror or err}") from err
