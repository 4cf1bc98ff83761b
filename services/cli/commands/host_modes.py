"""`moln host drain|maintenance|offline|fence|power`: what is done with a machine as a whole."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import click
from google.protobuf.message import Message

from moln.compute.v1.host_pb2 import Host
from moln.compute.v1.host_service_pb2 import (
    DrainHostRequest,
    FenceHostRequest,
    MaintainHostRequest,
    PowerOffHostRequest,
    PowerOnHostRequest,
    SetHostOfflineRequest,
)
from services.cli.command_line import Command, Group
from services.cli.drains import stuck
from services.cli.exits import CliError, Exit, usage
from services.cli.options import SECONDS, Name
from services.cli.resources.hosts import HOSTS, state_of
from services.cli.session import Session
from services.common.domain.words import counted

SCRIPT_SECONDS = 180.0
DRAIN_SECONDS = 3600.0
LOOK_SECONDS = 1.0


def _set(session: Session, hosts: Sequence[str], method: str, request: Callable[[int], Message]) -> list[Host]:
    changed = []
    for found in HOSTS.find_all(session.client, hosts):
        host = session.client.unary(HOSTS.path(method), request(found.id), Host)
        left = f", {counted(host.view.drain_left, 'VM')} to move away" if host.view.drain_left else ""
        click.echo(f"{HOSTS.title(host)} is {state_of(host)}{left}")
        changed.append(host)
    return changed


def _wait_until_empty(session: Session, hosts: Sequence[Host], seconds: float) -> None:
    """Tells each step; raises NOT_REACHED naming what is left."""
    deadline, left = time.monotonic() + seconds, {host.id: host.view.drain_left for host in hosts}
    while any(left.values()):
        if time.monotonic() > deadline:
            names = ", ".join(f"{HOSTS.title(host)} has {left[host.id]}" for host in hosts if left[host.id])
            why = [f"  {line}" for host in hosts if left[host.id] for line in stuck(session.client, host)]
            words = f"VMs are left: {names}; it goes on, see: moln host list"
            raise CliError("\n".join([words, *why]), Exit.NOT_REACHED)
        time.sleep(min(LOOK_SECONDS, max(0.0, deadline - time.monotonic())))
        for host in hosts:
            now = HOSTS.find(session.client, str(host.id))
            if now.view.drain_left != left[host.id]:
                left[host.id] = now.view.drain_left
                click.echo(f"{HOSTS.title(now)}: {now.view.drain_left} of {counted(now.view.drain_total, 'VM')} left")


@click.command(
    "drain",
    cls=Command,
    examples="""
    moln host drain node-1
    moln host drain node-1 node-2 --wait
    """,
)
@click.argument("hosts", type=Name("host"), nargs=-1, required=True)
@click.option("--wait", is_flag=True, help="Return when no VM is left.")
@click.option("--timeout", type=SECONDS, default=DRAIN_SECONDS, metavar="TIME", help="How long (default 1h).")
@click.pass_obj
def drain(session: Session, hosts: Sequence[str], wait: bool, timeout: float) -> None:
    """Moves all VMs away from hosts and places nothing new there; `enable` or `disable` ends it."""
    changed = _set(session, hosts, "DrainHost", lambda host_id: DrainHostRequest(id=host_id))
    if wait:
        _wait_until_empty(session, changed, timeout)


@click.command(
    "maintenance",
    cls=Command,
    examples="""
    moln host maintenance node-1 --wait
    """,
)
@click.argument("hosts", type=Name("host"), nargs=-1, required=True)
@click.option("--wait", is_flag=True, help="Return when no VM is left.")
@click.option("--timeout", type=SECONDS, default=DRAIN_SECONDS, metavar="TIME", help="How long (default 1h).")
@click.pass_obj
def maintenance(session: Session, hosts: Sequence[str], wait: bool, timeout: float) -> None:
    """Drains hosts for work on them: once they are empty, their silence is no problem. Until `enable`."""
    changed = _set(session, hosts, "MaintainHost", lambda host_id: MaintainHostRequest(id=host_id))
    if wait:
        _wait_until_empty(session, changed, timeout)


@click.command(
    "offline",
    cls=Command,
    examples="""
    moln host offline node-1
    """,
)
@click.argument("hosts", type=Name("host"), nargs=-1, required=True)
@click.pass_obj
def offline(session: Session, hosts: Sequence[str]) -> None:
    """Ceases to monitor hosts: nothing new there, and their silence is no problem. Until `enable`."""
    _set(session, hosts, "SetHostOffline", lambda host_id: SetHostOfflineRequest(id=host_id))


@click.command(
    "fence",
    cls=Command,
    examples="""
    moln host fence node-1
    moln host fence node-1 --confirmed
    """,
)
@click.argument("host", type=Name("host"))
@click.option("--confirmed", is_flag=True, help="You have made sure that the machine is off: no script is run.")
@click.pass_obj
def fence(session: Session, host: str, confirmed: bool) -> None:
    """Makes certain that nothing runs on a silent host, by its fence command: its VMs may start elsewhere.

    With --confirmed, on your word: a VM that still ran there would run twice.
    """
    found = HOSTS.find(session.client, host)
    if not confirmed and not found.spec.fence_command:
        raise usage(f"{HOSTS.title(found)} has no fence command: make sure that its machine is off, then say "
                    "--confirmed: a VM that still ran there would run twice")  # fmt: skip
    request = FenceHostRequest(id=found.id, is_confirmed=confirmed)
    fenced = session.client.unary(HOSTS.path("FenceHost"), request, Host, seconds=SCRIPT_SECONDS)
    click.echo(f"{HOSTS.title(fenced)} is {state_of(fenced)}")


@click.group("power", cls=Group)
def power() -> None:
    """Machines on and off, by the host's power command."""


@power.command(
    "off",
    cls=Command,
    examples="""
    moln host power off node-1
    """,
)
@click.argument("hosts", type=Name("host"), nargs=-1, required=True)
@click.option("--force", is_flag=True, help="Also while VMs run there.")
@click.pass_obj
def power_off(session: Session, hosts: Sequence[str], force: bool) -> None:
    """Shuts machines down. One that is enabled is put into maintenance first."""
    for found in HOSTS.find_all(session.client, hosts):
        request = PowerOffHostRequest(id=found.id, is_forced=force)
        host = session.client.unary(HOSTS.path("PowerOffHost"), request, Host, seconds=SCRIPT_SECONDS)
        click.echo(f"the machine of {HOSTS.title(host)} is off; the host is {state_of(host)}")


@power.command(
    "on",
    cls=Command,
    examples="""
    moln host power on node-1
    """,
)
@click.argument("hosts", type=Name("host"), nargs=-1, required=True)
@click.pass_obj
def power_on(session: Session, hosts: Sequence[str]) -> None:
    """Switches machines on. What is wanted of the host stays as it is."""
    for found in HOSTS.find_all(session.client, hosts):
        request = PowerOnHostRequest(id=found.id)
        host = session.client.unary(HOSTS.path("PowerOnHost"), request, Host, seconds=SCRIPT_SECONDS)
        click.echo(f"the machine of {HOSTS.title(host)} is switched on")


COMMANDS = (drain, maintenance, offline, fence, power)
