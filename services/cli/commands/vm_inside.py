"""`moln vm console|ssh`: into the guest."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from moln.compute.v1.vm_pb2 import Vm
from moln.compute.v1.vm_service_pb2 import GetVmConsoleLogRequest, GetVmConsoleLogResponse
from services.cli.command_line import Command
from services.cli.console import connect
from services.cli.exits import CliError, Exit, usage
from services.cli.options import Name
from services.cli.resources.vms import VMS, state_of, why
from services.cli.revisions import cache_folder
from services.cli.session import Session


@click.command(
    "console",
    cls=Command,
    examples="""
    moln vm console web
    moln vm console web --log
    echo uptime | moln vm console web
    """,
)
@click.argument("vm", type=Name("vm"))
@click.option("--log", is_flag=True, help="Print what the guest has written so far, and return.")
@click.option(
    "--bytes", "max_bytes", type=click.IntRange(1, 2**20), default=2**16, help="How much of the log, at most."
)
@click.pass_obj
def console(session: Session, vm: str, log: bool, max_bytes: int) -> None:
    """Connects to the serial console; Ctrl-] ends. Without a terminal: types its input, ends when the answer has."""
    number = VMS.id_of(session.client, vm)
    if not log:
        connect(session.client, number)
        return
    request = GetVmConsoleLogRequest(id=number, max_bytes=max_bytes)
    answer = session.client.unary(VMS.path("GetVmConsoleLog"), request, GetVmConsoleLogResponse)
    sys.stdout.buffer.write(answer.data)
    sys.stdout.buffer.flush()


@click.command(
    "ssh",
    cls=Command,
    context_settings={"ignore_unknown_options": True},
    examples="""
    moln vm ssh web
    moln vm ssh web -l debian -i ~/.ssh/id_ed25519
    moln vm ssh web -- uptime
    """,
)
@click.argument("vm", type=Name("vm"))
@click.option("--login", "-l", "user", help="User of the guest (default: root).", default="root")
@click.option("--identity", "-i", metavar="FILE", help="Private key.")
@click.option("--port", "-p", type=click.IntRange(1, 65535), default=22, help="Port (default 22).")
@click.option("--address", help="Address to use (default: the first of the VM).")
@click.argument("words", nargs=-1, metavar="[-- COMMAND…]")
@click.pass_obj
def ssh(
    session: Session, vm: str, user: str, identity: str | None, port: int, address: str | None, words: Sequence[str]
) -> None:
    """Logs in by ssh, or runs a command there. Host keys are kept by VM: a new one at an old address is no alarm."""
    found = VMS.find(session.client, vm)
    host = address or _address(found)
    program = shutil.which("ssh")
    if program is None:
        raise CliError("there is no `ssh` on this machine: install openssh-client")
    known_hosts = cache_folder(session.environment) / "known_hosts"
    known_hosts.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    session.close()
    os.execv(program, _ssh_words(found, user, host, port, identity, known_hosts, words))  # noqa: S606  (no shell)


def _address(vm: Vm) -> str:
    if state_of(vm) != "RUNNING":
        raise CliError(f"{VMS.title(vm)} is {state_of(vm)}, not RUNNING: {why(vm)}".rstrip(": "), Exit.REFUSED)
    addresses = [vm.view.ipv4, *(guest for status in vm.statuses for guest in status.guest_addresses)]
    found = next(filter(None, addresses), "")
    if not found:
        raise usage(f"{VMS.title(vm)} has no address: give one with --address, or use `moln vm console {vm.id}`")
    return found


def _ssh_words(
    vm: Vm, user: str, host: str, port: int, identity: str | None, known_hosts: Path, words: Sequence[str]
) -> list[str]:
    """The argument vector: nothing of it passes a shell of ours."""
    options = [
        f"HostKeyAlias=moln-{vm.uid}",
        f"UserKnownHostsFile={known_hosts}",
        "StrictHostKeyChecking=accept-new",
        "LogLevel=ERROR",  # a new key is expected, and not worth a line
    ]
    return [
        "ssh",
        *(word for option in options for word in ("-o", option)),
        *(("-i", identity) if identity else ()),
        *("-p", str(port), "-l", user, "--", host),
        *words,
    ]


COMMANDS = (console, ssh)
