"""`moln vm vnc|screenshot|exec|ping|freeze|thaw`: the guest's screen, and the agent in the guest."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from google.protobuf.duration_pb2 import Duration

from moln.compute.v1 import vm_service_pb2 as pb
from services.cli.command_line import Command
from services.cli.exits import CliError, Exit, usage
from services.cli.options import SECONDS, Name
from services.cli.resources.vms import VMS
from services.cli.screen import listen_on_path, listen_on_port, serve
from services.cli.session import Session

SIGNALLED = 255
SLACK_S = 30.0
MAX_INPUT_BYTES = 64 * 1024


@click.command(
    "vnc",
    cls=Command,
    examples="""
    moln vm vnc web
    moln vm vnc web --port 5901
    moln vm vnc web --socket /tmp/web.sock --once
    """,
)
@click.argument("vm", type=Name("vm"))
@click.option("--port", type=click.IntRange(1, 65535), help="Port on loopback to listen on (default: a free one).")
@click.option("--socket", "path", type=click.Path(path_type=Path), help="UNIX socket to listen on instead.")
@click.option("--once", is_flag=True, help="Ends when the first viewer has left.")
@click.pass_obj
def vnc(session: Session, vm: str, port: int | None, path: Path | None, once: bool) -> None:
    """Opens a door to the guest's screen on this machine, for any VNC viewer; Ctrl-C ends."""
    if port and path:
        raise usage("--port and --socket exclude each other")
    found = VMS.find(session.client, vm)
    shape = found.spec.template
    if shape.graphics.type in ("", "none") and not shape.raw.libvirt_xml:
        raise CliError("the VM has no screen: create it with graphics: {type: vnc}", Exit.REFUSED)
    door = listen_on_path(path) if path else listen_on_port(port or 0)
    where = str(path) if path else "127.0.0.1::{1}".format(*door.getsockname())
    click.echo(f"the screen of VM {vm} is at {where} for a VNC viewer; Ctrl-C ends", err=True)
    try:
        with door, contextlib.suppress(KeyboardInterrupt):
            serve(session.client, found.id, door, once=once)
    finally:
        if path:
            path.unlink(missing_ok=True)


@click.command(
    "screenshot",
    cls=Command,
    examples="""
    moln vm screenshot web -o web.png
    moln vm screenshot web -o - | display
    """,
)
@click.argument("vm", type=Name("vm"))
@click.option("--output", "-o", required=True, metavar="FILE", help="File to write (PNG), or `-`.")
@click.pass_obj
def screenshot(session: Session, vm: str, output: str) -> None:
    """Takes a picture of the guest's screen."""
    request = pb.TakeVmScreenshotRequest(id=VMS.id_of(session.client, vm))
    answer = session.client.unary(VMS.path("TakeVmScreenshot"), request, pb.TakeVmScreenshotResponse, seconds=60.0)
    if output == "-":
        sys.stdout.buffer.write(answer.png)
        return
    try:
        Path(output).write_bytes(answer.png)
    except OSError as err:
        raise CliError(f"{output} cannot be written: {err.strerror}") from err
    click.echo(f"{output}: {answer.width} × {answer.height}", err=True)


@click.command(
    "exec",
    cls=Command,
    context_settings={"ignore_unknown_options": True},
    examples="""
    moln vm exec web -- uname -a
    moln vm exec web --timeout 5m -- sh -c 'apt-get update && apt-get -y upgrade'
    moln vm exec web --input hosts -- tee /etc/hosts
    """,
)
@click.argument("vm", type=Name("vm"))
@click.option("--timeout", type=SECONDS, default=30.0, help="How long it may take (default 30s, at most 10m).")
@click.option("--input", "source", metavar="FILE", help="File that the command reads, `-` for standard input.")
@click.argument("words", nargs=-1, required=True, metavar="-- COMMAND…")
@click.pass_context
def exec_(context: click.Context, vm: str, timeout: float, source: str | None, words: Sequence[str]) -> None:
    """Runs a command in the guest by its agent, and ends with the command's exit code. Needs the capability vm.exec."""
    session: Session = context.obj
    request = pb.ExecVmRequest(id=VMS.id_of(session.client, vm), command=words, input=_input(source))
    request.timeout.CopyFrom(Duration(seconds=round(timeout)))
    answer = session.client.unary(
        VMS.path("ExecVm"), request, pb.ExecVmResponse, seconds=timeout + SLACK_S, is_repeatable=False
    )
    sys.stdout.buffer.write(answer.output)
    sys.stdout.buffer.flush()
    sys.stderr.buffer.write(answer.error_output)
    if answer.is_truncated:
        click.echo("moln: the command wrote more than is shown", err=True)
    context.exit(answer.exit_code if 0 <= answer.exit_code < SIGNALLED else SIGNALLED)


@click.command("ping", cls=Command, examples="moln vm ping web")
@click.argument("vm", type=Name("vm"))
@click.pass_obj
def ping(session: Session, vm: str) -> None:
    """Asks whether the agent in the guest answers."""
    request = pb.PingVmAgentRequest(id=VMS.id_of(session.client, vm))
    session.client.unary(VMS.path("PingVmAgent"), request, pb.PingVmAgentResponse)
    click.echo(f"the agent of VM {vm} answers")


@click.command(
    "freeze",
    cls=Command,
    examples="""
    moln vm freeze db --timeout 2m
    """,
)
@click.argument("vm", type=Name("vm"))
@click.option("--timeout", type=SECONDS, default=60.0, help="Writes go on by themselves after (default 60s).")
@click.pass_obj
def freeze(session: Session, vm: str, timeout: float) -> None:
    """Has the guest hold all writes to its disks, so that a copy of them is consistent; see thaw."""
    request = pb.FreezeVmFilesystemsRequest(id=VMS.id_of(session.client, vm))
    request.timeout.CopyFrom(Duration(seconds=round(timeout)))
    answer = session.client.unary(
        VMS.path("FreezeVmFilesystems"), request, pb.FreezeVmFilesystemsResponse, seconds=SLACK_S
    )
    click.echo(f"{answer.filesystems} file systems of VM {vm} are frozen; they thaw after {timeout:g} s at the latest")


@click.command("thaw", cls=Command, examples="moln vm thaw db")
@click.argument("vm", type=Name("vm"))
@click.pass_obj
def thaw(session: Session, vm: str) -> None:
    """Lets the guest's writes go on."""
    request = pb.ThawVmFilesystemsRequest(id=VMS.id_of(session.client, vm))
    answer = session.client.unary(VMS.path("ThawVmFilesystems"), request, pb.ThawVmFilesystemsResponse)
    click.echo(f"{answer.filesystems} file systems of VM {vm} are thawed")


def _input(source: str | None) -> bytes:
    if source is None:
        return b""
    try:
        content = sys.stdin.buffer.read(MAX_INPUT_BYTES + 1) if source == "-" else Path(source).read_bytes()
    except OSError as err:
        raise usage(f"{source} cannot be read: {err.strerror}") from err
    if len(content) > MAX_INPUT_BYTES:
        raise usage(
            f"the input is longer than {MAX_INPUT_BYTES} bytes: put it into the guest by an image or its network"
        )
    return content


COMMANDS = (vnc, screenshot, exec_, ping, freeze, thaw)
