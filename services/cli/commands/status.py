"""`moln status`: the cloud as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import click

from moln.operations.v1.operations_service_pb2 import CloudStatus, GetStatusRequest, Problem
from moln.operations.v1.records_pb2 import ProcessRecord
from services.cli.command_line import Command
from services.cli.options import output_option
from services.cli.printing import fields, print_document, section
from services.cli.session import Session
from services.cli.sizes import age, cores, mib
from services.cli.tables import Column, plain_lines


@click.command(
    "status",
    cls=Command,
    examples="""
    moln status
    moln status -o json | jq .problems
    """,
)
@output_option(("text", "json", "yaml"))
@click.pass_obj
def command(session: Session, output: str) -> None:
    """Shows services, hosts, capacity, and what is wrong with the remedy."""
    status = session.client.unary("/moln.operations.v1.OperationsService/GetStatus", GetStatusRequest(), CloudStatus)
    if output != "text":
        print_document(status, output)
        return
    name, endpoint = session.cloud.name, session.cloud.endpoint
    for line in status_lines(status, endpoint if name == endpoint else f"{name} at {endpoint}"):
        click.echo(line)


def status_lines(status: CloudStatus, where: str) -> list[str]:
    """The cloud in words. Who is no administrator is told neither services nor problems, so nothing is said of them."""
    leaders = set(status.leaders.values())
    columns: tuple[Column[ProcessRecord], ...] = (
        Column("SERVICE", lambda process: process.kind),
        Column("ADDRESS", lambda process: process.address),
        Column("LEADER", lambda process: "yes" if process.address in leaders else ""),
        Column("UP", lambda process: age(process.start_time)),
        Column("VERSION", lambda process: process.version),
        Column("PROBLEMS", lambda process: "; ".join(process.problems)),
    )
    cloud = fields([("cloud", where), ("uid", status.cloud_uid), ("version", status.version), *_capacity(status)])
    if not (status.processes or status.problems):
        return cloud
    problems = [line for problem in status.problems for line in _problem_lines(problem)]
    return [
        *cloud,
        *section("Services", plain_lines(columns, sorted(status.processes, key=lambda item: item.kind))),
        *(section("What is wrong", problems) or ["", "Nothing is wrong."]),
    ]


def _capacity(status: CloudStatus) -> Iterator[tuple[str, object]]:
    used, total = status.used, status.total
    yield "hosts", _counts(status.hosts)
    yield "VMs", _counts(status.vms)
    yield "CPU", f"{cores(used.cpu_percent)} of {cores(total.cpu_percent)} cores given out"
    yield "memory", f"{mib(used.memory_mib)} of {mib(total.memory_mib)} given out"
    yield "disk", f"{mib(used.disk_mib)} of {mib(total.disk_mib)} given out"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {word}" for word, number in sorted(counts.items())) or "none"


def _problem_lines(problem: Problem) -> Iterator[str]:
    yield f"{problem.subject}: {problem.message}" + (f" ({problem.reason})" if problem.reason else "")
    if problem.remedy:
        yield f"  remedy: {problem.remedy}"
