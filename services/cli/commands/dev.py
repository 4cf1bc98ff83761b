"""`moln dev`: a whole cloud on this machine. Starts services.devstack as a process; has no part in its work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from services.cli.clouds import find_stack
from services.cli.command_line import Group
from services.cli.exits import CliError
from services.cli.options import confirm, yes_option
from services.cli.session import Session, is_terminal
from services.cli.starting import become
from services.common.stacks import DEFAULT_FOLDER

state_option = click.option("--state", metavar="FOLDER", help=f"State folder of the stack (default: {DEFAULT_FOLDER}).")


@click.group("dev", cls=Group)
def command() -> None:
    """A whole cloud on this machine: etcd, all services, a node, and simulated hosts."""


@command.command(
    "up",
    examples="""
    moln dev up
    moln dev up --detach --sim-hosts 100
    moln dev up --state /tmp/other --no-real-host --sim-hosts 4
    moln dev up --monitoring
    """,
)
@state_option
@click.option("--detach", "-d", is_flag=True, help="Return when everything is up; `moln dev down` ends it.")
@click.option("--sim-hosts", type=click.IntRange(0, 100_000), default=0, metavar="N", help="Simulated hosts besides.")
@click.option("--keep-guests", is_flag=True, help="Leave guests running at the end; the next start adopts them.")
@click.option(
    "--real-host/--no-real-host", default=None, help="A node that runs real guests (default: yes, or as before)."
)
@click.option("--name", help="Name of the stack (default: from its folder).")
@click.option("--monitoring", is_flag=True, help="Start a Prometheus that scrapes it, with the rules and alerts.")
@click.pass_obj
def up(
    session: Session, state: str | None, detach: bool, sim_hosts: int, keep_guests: bool, real_host: bool | None,
    name: str | None, monitoring: bool,
) -> None:  # fmt: skip
    """Starts a cloud, or starts it again as it was. Ctrl-C ends it and powers its guests off."""
    flags = [
        *(("--detach",) if detach else ()),
        *(("--keep-guests",) if keep_guests else ()),
        *(() if real_host is None else ("--real-host" if real_host else "--no-real-host",)),
        *(("--name", name) if name else ()),
        *(("--monitoring",) if monitoring else ()),
        *("--sim-hosts", str(sim_hosts)),
    ]
    start("up", ["--state", state_folder(session, state), *flags])


@command.command(
    "down",
    examples="""
    moln dev down
    moln dev down --purge
    """,
)
@state_option
@click.option("--purge", is_flag=True, help="Erase the cloud with all its images and VMs too.")
@yes_option
@click.pass_obj
def down(session: Session, state: str | None, purge: bool, yes: bool) -> None:
    """Ends a cloud: guests are powered off, nothing keeps running."""
    folder = state_folder(session, state)
    if purge and is_terminal():  # in a script the word itself is the consent: it has no other meaning
        confirm(f"Erase the cloud in {folder} with all that is in it?", yes=yes)
    start("down", ["--state", folder, *(("--purge",) if purge else ())])


@command.command(
    "status",
    examples="""
    moln dev status
    moln dev status -o json
    """,
)
@state_option
@click.option("--output", "-o", type=click.Choice(("text", "json")), default="text", show_default=True)
@click.pass_obj
def status(session: Session, state: str | None, output: str) -> None:
    """Shows the stacks of this machine, and the processes of each."""
    chosen = ["--state", state_folder(session, state)] if state or session.choice else []
    start("status", [*chosen, "--output", output])


def state_folder(session: Session, state: str | None) -> str:
    """The state folder that was named: by --state, or by --cloud and the like; else the default here."""
    if state:
        return str(Path(state).absolute())
    chosen = session.choice or session.environment.get("MOLN_CLOUD")
    if chosen:
        try:
            return find_stack(chosen, session.environment, session.folder).state_dir
        except CliError:
            if "/" in chosen:
                return str(Path(chosen).absolute())
            raise
    return str(session.folder / DEFAULT_FOLDER)


def start(verb: str, arguments: Sequence[str]) -> NoReturn:
    """Becomes that process: its exit code is ours."""
    become("services.devstack", [verb, *arguments])
