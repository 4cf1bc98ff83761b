"""`moln doctor`: what is left over or wrong on this machine. Starts services.devstack as a process."""

from __future__ import annotations

import click

from services.cli.command_line import Command
from services.cli.commands.dev import start, state_folder
from services.cli.session import Session


@click.command(
    "doctor",
    cls=Command,
    examples="""
    moln doctor
    moln doctor --fix
    """,
)
@click.option("--fix", is_flag=True, help="Clean up what killed stacks have left behind.")
@click.option("--state", metavar="FOLDER", help="Look at this stack only (default: all of this machine).")
@click.pass_obj
def command(session: Session, fix: bool, state: str | None) -> None:
    """Says in one line each what is left over or wrong, with the remedy. Exits 1 if anything is."""
    chosen = ["--state", state_folder(session, state)] if state or session.choice else []
    start("doctor", [*chosen, *(("--fix",) if fix else ())])
