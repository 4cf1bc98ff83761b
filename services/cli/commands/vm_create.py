"""`moln vm create`."""

from __future__ import annotations

from typing import Any

import click

from moln.compute.v1.vm_pb2 import Vm, VmState
from moln.compute.v1.vm_service_pb2 import CreateVmRequest
from services.cli.command_line import Command
from services.cli.creating import create_many, create_one, refused, summary, warn
from services.cli.documents import as_text, plain, yaml_text
from services.cli.options import SECONDS, SHOW_OUTPUTS, Name, output_option
from services.cli.printing import print_objects
from services.cli.resources.hosts import HOSTS
from services.cli.resources.templates import TEMPLATES
from services.cli.resources.vms import VMS
from services.cli.session import Session
from services.cli.shape import Shape, shape_options
from services.cli.waiting import wait_for_all

DEFAULT_WAIT_SECONDS = 120.0


@click.command(
    "create",
    cls=Command,
    examples="""
    moln vm create web --image debian --memory 2G --wait
    moln vm create --image debian --count 100 --label tier=front
    moln vm create db --image debian --disk size=20G --net back --ssh-key ~/.ssh/id_ed25519.pub
    moln vm create -f web.yaml --dry-run
    moln vm create --template web --memory 4G --requirement 'ARCH = "x86_64"'
    """,
)
@click.argument("name", required=False, default="")
@shape_options
@click.option("--template", type=Name("template"), help="Start from this template of the cloud.")
@click.option("--host", type=Name("host"), help="Place it on this host and no other.")
@click.option("--hold", is_flag=True, help="Do not place it until `moln vm release`.")
@click.option("--count", "-n", type=click.IntRange(1, 100_000), default=1, help="How many, numbered from 1.")
@click.option("--wait", is_flag=True, help="Return when they run.")
@click.option("--timeout", type=SECONDS, default=DEFAULT_WAIT_SECONDS, metavar="TIME", help="How long (default 2m).")
@click.option("--dry-run", is_flag=True, help="Check everything, create nothing, show what would be.")
@output_option(SHOW_OUTPUTS)
@click.pass_obj
def create(
    session: Session, /, name: str, template: str | None, host: str | None, hold: bool, count: int, wait: bool,
    timeout: float, dry_run: bool, output: str, **flags: Any,
) -> None:  # fmt: skip
    """Creates VMs from flags, a YAML template, or a template of the cloud; flags win over both.

    With nothing but --image: 1 vCPU, 512 MiB, an interface on the default network.
    """
    request = CreateVmRequest(
        name=name,
        template=Shape(**flags).template(needs_memory=template is None),
        template_id=TEMPLATES.id_of(session.client, template) if template else 0,
        host_id=HOSTS.id_of(session.client, host) if host else 0,
        is_held=hold,
        validate_only=dry_run,
    )
    if dry_run:
        planned = create_one(session.client, request)
        _show_plan(planned, count)
        warn(session.client, planned.spec.template)
        return
    _create(session, request, count, seconds=timeout if wait else 0, output=output)


def _create(session: Session, request: CreateVmRequest, count: int, *, seconds: float, output: str) -> None:
    created, failures = create_many(session.client, request, count)
    if created:
        warn(session.client, created[0].spec.template)
    if output == "text":
        click.echo(summary(created))
    elif not seconds:
        print_objects(VMS, created, output)
    if seconds and created:
        _wait(session, created, seconds, output)
    if failures:
        raise refused(failures, count)


def _wait(session: Session, created: list[Vm], seconds: float, output: str) -> None:
    running = wait_for_all(session.client, created, VmState.VM_STATE_RUNNING, seconds)
    if output != "text":
        print_objects(VMS, running, output)
    elif len(running) == 1:
        vm = running[0]
        click.echo(f"{VMS.title(vm)} runs on {vm.view.host}" + (f" at {vm.view.ipv4}" if vm.view.ipv4 else ""))
    else:
        click.echo(f"all {len(running)} run")


def _show_plan(vm: Vm, count: int) -> None:
    click.echo(f"# {'each of ' if count > 1 else ''}{count} VM{'s' if count > 1 else ''} would be created; nothing was")
    click.echo(yaml_text(plain(vm.spec.template, as_text)).rstrip())


COMMANDS = (create,)
