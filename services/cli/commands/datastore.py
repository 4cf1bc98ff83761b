"""`moln datastore`: where images are kept."""

from __future__ import annotations

import uuid
from pathlib import Path

import click

from moln.image.v1.datastore_service_pb2 import (
    CreateDatastoreRequest,
    DeleteDatastoreRequest,
    DeleteDatastoreResponse,
)
from moln.image.v1.image_pb2 import Datastore
from services.cli.command_line import Group
from services.cli.options import Name, confirm, list_options, output_option, yes_option
from services.cli.printing import fields, list_objects, print_object
from services.cli.resources.images import DATASTORES, readiness_of
from services.cli.session import Session
from services.cli.sizes import clock, mib


@click.group("datastore", cls=Group)
def command() -> None:
    """Where images are kept."""


@command.command(
    "list",
    examples="""
    moln datastore list
    """,
)
@list_options
@click.pass_obj
def list_datastores(session: Session, output: str, watch: bool) -> None:
    """Shows the datastores."""
    list_objects(session, DATASTORES, output=output, watch=watch)


@command.command(
    "show",
    examples="""
    moln datastore show default
    """,
)
@click.argument("datastore", type=Name("datastore"))
@output_option()
@click.pass_obj
def show_datastore(session: Session, datastore: str, output: str) -> None:
    """Shows one datastore."""
    found = DATASTORES.find(session.client, datastore)
    print_object(DATASTORES, found, output, _datastore_lines(found))


def _datastore_lines(datastore: Datastore) -> list[str]:
    return fields(
        (
            ("datastore", f"{datastore.spec.name} ({datastore.id})"),
            ("state", readiness_of(datastore)),
            ("reason", datastore.status.message),
            ("kind", datastore.spec.kind),
            ("path", datastore.spec.path),
            ("room", f"{mib(datastore.status.free_mib)} free of {mib(datastore.status.total_mib)}"),
            ("created", clock(datastore.spec.create_time)),
        )
    )


@command.command(
    "create",
    examples="""
    moln datastore create fast --path /srv/fast
    """,
)
@click.argument("name")
@click.option("--path", required=True, metavar="FOLDER", help="Folder on the machine of the image service.")
@click.pass_obj
def create_datastore(session: Session, name: str, path: str) -> None:
    """Makes a folder of the server a datastore."""
    request = CreateDatastoreRequest(
        name=name, kind="directory", path=str(Path(path).absolute()), request_id=str(uuid.uuid4())
    )
    created = session.client.unary(DATASTORES.path("CreateDatastore"), request, Datastore)
    click.echo(f"created {DATASTORES.title(created)}")


@command.command(
    "delete",
    examples="""
    moln datastore delete fast
    """,
)
@click.argument("datastore", type=Name("datastore"))
@yes_option
@click.pass_obj
def delete_datastore(session: Session, datastore: str, yes: bool) -> None:
    """Deletes a datastore that holds no image; its folder stays."""
    found = DATASTORES.find(session.client, datastore)
    confirm(f"Delete {DATASTORES.title(found)}?", yes=yes)
    request = DeleteDatastoreRequest(id=found.id)
    session.client.unary(DATASTORES.path("DeleteDatastore"), request, DeleteDatastoreResponse)
    click.echo(f"deleted {DATASTORES.title(found)}")
