"""`moln vm update`: what a VM is called, and what its user notes about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
from google.protobuf.field_mask_pb2 import FieldMask

from moln.compute.v1.vm_pb2 import Vm
from moln.compute.v1.vm_service_pb2 import UpdateVmRequest
from services.cli.command_line import Command
from services.cli.exits import usage
from services.cli.options import KEY_VALUE, Name
from services.cli.resources.vms import VMS
from services.cli.session import Session


@click.command(
    "update",
    cls=Command,
    examples="""
    moln vm update web --name web-old
    moln vm update web --label tier=front --label zone=a
    moln vm update web --field ticket=4711
    """,
)
@click.argument("vm", type=Name("vm"))
@click.option("--name", help="New name.")
@click.option("--description", help="New description.")
@click.option("--label", type=KEY_VALUE, multiple=True, metavar="KEY=VALUE", help="Label to set; KEY= removes it.")
@click.option("--field", type=KEY_VALUE, multiple=True, metavar="KEY=VALUE", help="Field of your own; KEY= removes it.")
@click.pass_obj
def update(
    session: Session, vm: str, name: str | None, description: str | None, label: Sequence[tuple[str, str]],
    field: Sequence[tuple[str, str]],
) -> None:  # fmt: skip
    """Changes name, description, labels or fields of your own."""
    found = VMS.find(session.client, vm)
    request = UpdateVmRequest(id=found.id, spec=found.spec, etag=found.view.etag, update_mask=FieldMask())
    if name is not None:
        request.spec.name = name
        request.update_mask.paths.append("name")
    if description is not None:
        request.spec.template.description = description
        request.update_mask.paths.append("template.description")
    if label:
        _set(request.spec.template.labels, label)
        request.update_mask.paths.append("template.labels")
    if field:
        _set(request.spec.user_fields, field)
        request.update_mask.paths.append("user_fields")
    if not request.update_mask.paths:
        raise usage("nothing to change: give --name, --description, --label or --field")
    click.echo(f"changed {VMS.title(session.client.unary(VMS.path('UpdateVm'), request, Vm))}")


def _set(pairs: Any, changes: Sequence[tuple[str, str]]) -> None:
    for key, value in changes:
        if value:
            pairs[key] = value
        else:
            pairs.pop(key, None)


COMMANDS = (update,)
