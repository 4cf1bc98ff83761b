"""`moln top`: hosts and VMs with what they take, the busiest first, live."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from itertools import islice

import click

from moln.operations.v1 import monitoring_service_pb2 as pb
from services.cli.client import Client
from services.cli.command_line import Command
from services.cli.documents import json_text, plain
from services.cli.exits import CliError, Exit
from services.cli.options import Name
from services.cli.resources.hosts import HOSTS
from services.cli.session import Session, is_terminal
from services.cli.tables import plain_lines
from services.cli.top_text import HOST_COLUMNS, VM_COLUMNS, summary

WATCH = "/moln.operations.v1.MonitoringService/WatchTop"
RETRY_SECONDS = 1.0
HOME, CLEAR_BELOW = "\x1b[H", "\x1b[J"
ORDERS = {
    "cpu": pb.USAGE_ORDER_CPU,
    "memory": pb.USAGE_ORDER_MEMORY,
    "disk": pb.USAGE_ORDER_DISK,
    "net": pb.USAGE_ORDER_NET,
    "id": pb.USAGE_ORDER_ID,
}


@click.command(
    "top",
    cls=Command,
    examples="""
    moln top
    moln top --sort memory --interval 2
    moln top --host node-1 --lines 50
    moln top --once -o json | jq '.vms[0]'
    """,
)
@click.option("--sort", "-s", type=click.Choice(tuple(ORDERS)), default="cpu", show_default=True, help="By what.")
@click.option("--lines", "-n", type=click.IntRange(1, 10_000), help="How many VMs (default: what the screen holds).")
@click.option("--host", type=Name("host"), help="Only the VMs of this host.")
@click.option("--interval", "-i", type=click.FloatRange(1, 3600), default=5.0, show_default=True, help="Seconds.")
@click.option("--once", is_flag=True, help="Show it once and end.")
@click.option("--output", "-o", type=click.Choice(("table", "json")), default="table", show_default=True)
@click.pass_obj
def command(
    session: Session, sort: str, lines: int | None, host: str | None, interval: float, once: bool, output: str
) -> None:
    """Shows what hosts and VMs take: CPU, memory, disks, networks. Ends with Ctrl-C.

    Samples are as old as the agents' last sweep, some seconds. CPU is in percent of a core. Hosts are shown to
    administrators; users see their own VMs.
    """
    host_id = HOSTS.id_of(session.client, host) if host else 0
    wanted = pb.ListVmUsagesRequest(order=ORDERS[sort], page_size=lines or _lines(once), host_id=host_id)
    request = pb.WatchTopRequest(vms=wanted)
    request.interval.FromMilliseconds(int(interval * 1000))
    try:
        for top in islice(_tops(session.client, request), 1 if once else None):
            if output == "json":
                click.echo(json_text(plain(top), indent=2 if once else None))
            else:
                _show(top, is_live=is_terminal() and not once, has_limit=lines is not None)
    except KeyboardInterrupt:
        return


def _lines(once: bool) -> int:
    return 10_000 if once else 1000


def _tops(client: Client, request: pb.WatchTopRequest) -> Iterator[pb.Top]:
    """The cloud again and again, through lost connections."""
    is_lost = False
    while True:
        try:
            for top in client.stream(WATCH, request, pb.Top):
                is_lost = False
                yield top
        except CliError as err:
            if err.code is not Exit.UNREACHABLE:
                raise
            if not is_lost:
                click.echo(f"moln: {err.message}; still trying", err=True)
            is_lost = True
            time.sleep(RETRY_SECONDS)


def _show(top: pb.Top, *, is_live: bool, has_limit: bool) -> None:
    lines = _all_lines(top)
    if not is_live:
        click.echo("\n".join([*lines, ""]))
        return
    columns, rows = shutil.get_terminal_size()
    shown = lines if has_limit else lines[: rows - 1]
    text = "\n".join(line[:columns] + "\x1b[K" for line in shown)
    sys.stdout.write(f"{HOME}{text}\n{CLEAR_BELOW}")
    sys.stdout.flush()


def _all_lines(top: pb.Top) -> list[str]:
    parts = [summary(top)]
    parts += [f"not asked: {text}" for text in top.missing]
    if top.hosts:
        parts += ["", *plain_lines(HOST_COLUMNS, sorted(top.hosts, key=lambda host: -host.usage.cpu_percent)[:20])]
    parts += ["", *plain_lines(VM_COLUMNS, top.vms)]
    return parts
