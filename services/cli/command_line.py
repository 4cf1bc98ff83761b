"""The frame of the command line: commands that are imported only when used, with examples and a choice of cloud.

Knows click and nothing of the cloud.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

from services.cli.session import Session


class Command(click.Command):
    """A command with examples in its help, and `--cloud`."""

    def __init__(self, *arguments: Any, examples: str = "", **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.examples = [line.strip() for line in examples.strip().splitlines()]
        if not any(parameter.name == "cloud" for parameter in self.params):
            self.params.append(cloud_option())

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The examples, word for word."""
        if not self.examples:
            return
        with formatter.section("Examples"):
            for line in self.examples:
                formatter.write(f"  {line}\n")


class Group(click.Group):
    """A group of such commands; a word that it does not know is answered with the nearest that it does."""

    command_class = Command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, with a suggestion."""
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand:
            raise click.UsageError(_unknown_command(args[0], self.list_commands(ctx)), ctx) from None


Group.group_class = Group


class LazyGroup(Group):
    """A group whose commands live in modules of their own, imported when they are used."""

    def __init__(self, *arguments: Any, table: Mapping[str, str], **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table."""
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports `services.cli.commands.<name>` and takes `command` from it."""
        if cmd_name not in self._table:
            return None
        command: click.Command = import_module(f"services.cli.commands.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """From the table, so that help imports nothing."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self._table.items()))


def cloud_option() -> click.Option:
    """`--cloud`, allowed before and after the command."""
    return click.Option(
        ["--cloud"],
        metavar="NAME|FOLDER",
        expose_value=False,
        callback=_choose_cloud,
        help="Which cloud to speak to (default: MOLN_CLOUD, MOLN_ENDPOINT, or the only one that runs here).",
    )


def _choose_cloud(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None and isinstance(ctx.obj, Session):
        ctx.obj.choice = value


def nearest(word: str, known: list[str]) -> str:
    """` (did you mean 'x'?)` for the nearest of the known words, or nothing."""
    found = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f" (did you mean '{found[0]}'?)" if found else ""


def _unknown_command(word: str, known: list[str]) -> str:
    return f"there is no command '{word}'" + (nearest(word, known) or f" (there are: {', '.join(known)})")
