"""`moln template`: named templates of virtual machines."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import click

from moln.compute.v1.template_pb2 import Template
from moln.compute.v1.template_service_pb2 import (
    CreateTemplateRequest,
    DeleteTemplateRequest,
    DeleteTemplateResponse,
    InstantiateTemplateRequest,
)
from moln.compute.v1.vm_pb2 import Vm, VmState
from services.cli.command_line import Group
from services.cli.creating import summary
from services.cli.documents import as_text, plain, yaml_text
from services.cli.options import (
    SECONDS,
    SHOW_OUTPUTS,
    Name,
    confirm,
    filter_option,
    list_options,
    output_option,
    yes_option,
)
from services.cli.printing import list_objects, print_object, print_objects
from services.cli.resources.templates import TEMPLATES
from services.cli.resources.vms import VMS
from services.cli.session import Session
from services.cli.shape import Shape, shape_options
from services.cli.waiting import wait_for_one


@click.group("template", cls=Group)
def command() -> None:
    """Named templates of virtual machines."""


@command.command(
    "create",
    examples="""
    moln template create web -f web.yaml
    moln template create small --image debian --memory 1G --public
    """,
)
@click.argument("name")
@shape_options
@click.option("--public", is_flag=True, help="Everyone may instantiate it.")
@click.option("--dry-run", is_flag=True, help="Check everything, create nothing.")
@click.pass_obj
def create_template(session: Session, /, name: str, public: bool, dry_run: bool, **flags: Any) -> None:
    """Keeps a template in the cloud, from flags or a YAML file."""
    shape = Shape(**flags).template(needs_memory=True)
    request = CreateTemplateRequest(
        name=name, template=shape, is_public=public, request_id=str(uuid.uuid4()), validate_only=dry_run
    )
    created = session.client.unary(TEMPLATES.path("CreateTemplate"), request, Template)
    if dry_run:
        click.echo(yaml_text(plain(created.spec.template, as_text)).rstrip())
        return
    click.echo(f"created {TEMPLATES.title(created)}")


@command.command(
    "list",
    examples="""
    moln template list
    """,
)
@filter_option("name=web*")
@list_options
@click.pass_obj
def list_templates(session: Session, condition: str, output: str, watch: bool) -> None:
    """Shows the templates that you may use."""
    list_objects(session, TEMPLATES, output=output, condition=condition, watch=watch)


@command.command(
    "show",
    examples="""
    moln template show web
    moln template show web > web.yaml
    """,
)
@click.argument("template", type=Name("template"))
@output_option()
@click.pass_obj
def show_template(session: Session, template: str, output: str) -> None:
    """Prints a template as YAML, as `moln vm create -f` takes it."""
    found = TEMPLATES.find(session.client, template)
    text = yaml_text(plain(found.spec.template, as_text)).rstrip()
    print_object(TEMPLATES, found, output, [f"# {TEMPLATES.title(found)}", text])


@command.command(
    "instantiate",
    examples="""
    moln template instantiate web
    moln template instantiate web --name web-7 --memory 4G --wait
    """,
)
@click.argument("template", type=Name("template"))
@click.option("--name", default="", help="Name of the VM (default: the template's and its id).")
@shape_options
@click.option("--hold", is_flag=True, help="Do not place it until `moln vm release`.")
@click.option("--wait", is_flag=True, help="Return when it runs.")
@click.option("--timeout", type=SECONDS, default=120.0, metavar="TIME", help="How long (default 2m).")
@click.option("--dry-run", is_flag=True, help="Check everything, create nothing.")
@output_option(SHOW_OUTPUTS)
@click.pass_obj
def instantiate(
    session: Session, /, template: str, name: str, hold: bool, wait: bool, timeout: float, dry_run: bool, output: str,
    **flags: Any,
) -> None:  # fmt: skip
    """Creates a VM from a template; flags win over it. (`moln vm create --template` makes many.)"""
    request = InstantiateTemplateRequest(
        id=TEMPLATES.id_of(session.client, template), name=name, is_held=hold, validate_only=dry_run,
        overrides=Shape(**flags).template(needs_memory=False), request_id=str(uuid.uuid4()),
    )  # fmt: skip
    vm = session.client.unary(TEMPLATES.path("InstantiateTemplate"), request, Vm)
    if dry_run:
        click.echo(yaml_text(plain(vm.spec.template, as_text)).rstrip())
        return
    if wait:
        vm = wait_for_one(session.client, vm, VmState.VM_STATE_RUNNING, timeout)
    if output == "text":
        click.echo(summary([vm]) + (f", it runs on {vm.view.host}" if wait else ""))
    else:
        print_objects(VMS, [vm], output)


@command.command(
    "delete",
    examples="""
    moln template delete web
    """,
)
@click.argument("templates", type=Name("template"), nargs=-1, required=True)
@yes_option
@click.pass_obj
def delete_templates(session: Session, templates: Sequence[str], yes: bool) -> None:
    """Deletes templates; VMs made from them stay."""
    found = TEMPLATES.find_all(session.client, templates)
    confirm(f"Delete {', '.join(map(TEMPLATES.title, found))}?", yes=yes)
    for template in found:
        request = DeleteTemplateRequest(id=template.id)
        session.client.unary(TEMPLATES.path("DeleteTemplate"), request, DeleteTemplateResponse)
        click.echo(f"deleted {TEMPLATES.title(template)}")
