"""`moln version`."""

from __future__ import annotations

from importlib import metadata

import click

from services.cli.command_line import Command


@click.command(
    "version",
    cls=Command,
    examples="""
    moln version
    """,
)
def command() -> None:
    """Prints the version of this command; `moln status` prints that of the cloud."""
    click.echo(f"moln {metadata.version('moln')}")
