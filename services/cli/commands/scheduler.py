"""`moln scheduler`: where a VM could go and why not elsewhere; checks of expressions."""

from __future__ import annotations

from collections.abc import Iterator

import click

from moln.scheduler.v1.scheduler_service_pb2 import (
    Candidate,
    CheckExpressionRequest,
    CheckExpressionResponse,
    ExplainVmRequest,
    ExplainVmResponse,
)
from services.cli.command_line import Group
from services.cli.exits import usage
from services.cli.options import Name, output_option
from services.cli.printing import print_document, section
from services.cli.resources.vms import VMS
from services.cli.session import Session

_SERVICE = "/moln.scheduler.v1.SchedulerService"


@click.group("scheduler", cls=Group)
def command() -> None:
    """Where virtual machines go, and why."""


@command.command(
    "explain",
    examples="""
    moln scheduler explain web
    moln scheduler explain web --candidates 20
    """,
)
@click.argument("vm", type=Name("vm"))
@click.option("--candidates", type=click.IntRange(1, 1000), default=5, help="Most hosts to show (default 5).")
@output_option()
@click.pass_obj
def explain_vm(session: Session, vm: str, candidates: int, output: str) -> None:
    """Shows what each filter leaves of the hosts, and the best of them with their scores.

    A VM that has a host is looked at as if it had none.
    """
    found = VMS.find(session.client, vm)
    request = ExplainVmRequest(id=found.id, max_candidates=candidates)
    answer = session.client.unary(f"{_SERVICE}/ExplainVm", request, ExplainVmResponse)
    if output != "text":
        print_document(answer, output)
        return
    for line in explanation_lines(answer):
        click.echo(line)


def explanation_lines(answer: ExplainVmResponse) -> Iterator[str]:
    """The answer for people."""
    yield f"{answer.reason}: {answer.message}" if answer.reason else "it fits"
    left = [f"{row.hosts_left:>6} left by {row.name}" for row in answer.filters]
    yield from section("Hosts", [f"{answer.hosts:>6} hosts", *left])
    yield from section("Best hosts", [_candidate(each) for each in answer.candidates])
    yield from section("Warnings", [f"no host has the attribute {name}" for name in answer.unknown_attributes])


def _candidate(found: Candidate) -> str:
    parts = " + ".join(f"{part.weight:g} × {part.name} {part.value:.4g}" for part in found.parts)
    return f"{found.host} ({found.host_id})  {found.score:.4g}" + (f" = {parts}" if parts else "")


@command.command(
    "check",
    examples="""
    moln scheduler check --requirement 'FREE_MEMORY > 2097152 & NAME = "node-*"'
    moln scheduler check --rank 'FREE_CPU / TOTAL_CPU'
    """,
)
@click.option("--requirement", default="", metavar="EXPR", help="A requirement.")
@click.option("--rank", default="", metavar="EXPR", help="A rank.")
@click.pass_obj
def check_expression(session: Session, requirement: str, rank: str) -> None:
    """Checks a requirement or a rank; warns of attributes that no host has."""
    if not (requirement or rank):
        raise usage("nothing to check: give --requirement or --rank")
    request = CheckExpressionRequest(requirement=requirement, rank=rank)
    answer = session.client.unary(f"{_SERVICE}/CheckExpression", request, CheckExpressionResponse)
    for warning in answer.warnings:
        click.echo(f"moln: warning: {warning}", err=True)
    click.echo("it can be read" if answer.warnings else "fine")
