"""`moln image`: what disks are made from."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import click

from moln.image.v1.image_pb2 import Image, ImageSource
from moln.image.v1.image_service_pb2 import CreateImageRequest, DeleteImageRequest, DeleteImageResponse
from services.cli.command_line import Group
from services.cli.exits import usage
from services.cli.options import (
    KEY_VALUE,
    SECONDS,
    SIZE,
    Name,
    confirm,
    filter_option,
    list_options,
    output_option,
    yes_option,
)
from services.cli.printing import fields, list_objects, print_object
from services.cli.resources.images import DATASTORES, IMAGES, source_of, state_of
from services.cli.session import Session
from services.cli.sizes import clock, size
from services.cli.upload import upload
from services.cli.waiting_images import wait_until_ready
from services.common.domain.words import counted


@click.group("image", cls=Group)
def command() -> None:
    """Images that disks are made from."""


@command.command(
    "create",
    examples="""
    moln image create debian --path ./debian-12.qcow2
    moln image create debian --url https://cloud.debian.org/images/debian-12.qcow2 --sha256 0f3c…
    moln image create scratch --size 10G --format raw
    moln image create golden --path /srv/golden.qcow2 --on-server
    """,
)
@click.argument("name")
@click.option("--path", metavar="FILE", help="A file of yours, sent up; with --on-server, a file there.")
@click.option("--on-server", is_flag=True, help="The path is on the server; needs the capability host.path.")
@click.option("--url", help="Fetched by the server.")
@click.option("--size", "size_mib", type=SIZE, help="An empty image of this size.")
@click.option("--format", "form", type=click.Choice(("qcow2", "raw")), help="Format (default: found out).")
@click.option("--sha256", default="", help="Refuse other bytes than those.")
@click.option("--datastore", type=Name("datastore"), help="Where it is kept (default: the cloud's default).")
@click.option("--public", is_flag=True, help="Everyone may use it; administrators only.")
@click.option("--label", type=KEY_VALUE, multiple=True, metavar="KEY=VALUE", help="Label of your own.")
@click.option("--description", default="", help="Text of your own.")
@click.option("--no-wait", is_flag=True, help="Return before the server has fetched it.")
@click.option("--timeout", type=SECONDS, default=3600.0, metavar="TIME", help="How long to wait (default 1h).")
@output_option()
@click.pass_obj
def create_image(
    session: Session, name: str, path: str | None, on_server: bool, url: str | None, size_mib: int | None,
    form: str | None, sha256: str, datastore: str | None, public: bool, label: Sequence[tuple[str, str]],
    description: str, no_wait: bool, timeout: float, output: str,
) -> None:  # fmt: skip
    """Registers an image from a file of yours, a URL, a file on the server, or empty."""
    request = CreateImageRequest(
        name=name, format=form or "", expected_sha256=sha256, is_public=public, labels=dict(label),
        description=description, request_id=str(uuid.uuid4()),
        datastore_id=DATASTORES.id_of(session.client, datastore) if datastore else 0,
    )  # fmt: skip
    _set_source(request, path, on_server, url, size_mib)
    if request.source == ImageSource.IMAGE_SOURCE_UPLOAD:
        image = upload(session.client, request, path or "")
    else:
        image = session.client.unary(IMAGES.path("CreateImage"), request, Image)
        image = image if no_wait else wait_until_ready(session.client, image, timeout)
    text = f"{IMAGES.title(image)} is {state_of(image)}"
    print_object(IMAGES, image, output, [f"{text}, {size(image.status.virtual_size_bytes)} {image.status.format}"])


def _set_source(
    request: CreateImageRequest, path: str | None, on_server: bool, url: str | None, size: int | None
) -> None:
    given = [name for name, value in (("--path", path), ("--url", url), ("--size", size)) if value is not None]
    if len(given) != 1:
        raise usage(f"an image comes from one of --path, --url or --size, not {' and '.join(given) or 'none'}")
    if on_server and path is None:
        raise usage("--on-server goes with --path")
    if url is not None:
        request.source, request.location = ImageSource.IMAGE_SOURCE_URL, url
    elif size is not None:
        request.source, request.size_mib = ImageSource.IMAGE_SOURCE_EMPTY, size
    elif on_server:
        request.source, request.location = ImageSource.IMAGE_SOURCE_PATH, path or ""
    else:
        request.source = ImageSource.IMAGE_SOURCE_UPLOAD


@command.command(
    "list",
    examples="""
    moln image list
    moln image list --filter 'name=debian* state=READY' -o wide
    """,
)
@filter_option("name=debian* state=READY")
@list_options
@click.pass_obj
def list_images(session: Session, condition: str, output: str, watch: bool) -> None:
    """Shows the images that you may use."""
    list_objects(session, IMAGES, output=output, condition=condition, watch=watch)


@command.command(
    "show",
    examples="""
    moln image show debian
    """,
)
@click.argument("image", type=Name("image"))
@output_option()
@click.pass_obj
def show_image(session: Session, image: str, output: str) -> None:
    """Shows one image."""
    found = IMAGES.find(session.client, image)
    print_object(IMAGES, found, output, _image_lines(found))


def _image_lines(image: Image) -> list[str]:
    return fields(
        (
            ("image", f"{image.spec.name} ({image.id})"),
            ("uid", image.spec.uid),
            ("state", state_of(image)),
            ("reason", ": ".join(filter(None, (image.status.reason, image.status.message)))),
            ("owner", image.spec.owner + (", public" if image.spec.is_public else "")),
            ("format", image.status.format),
            ("size", f"{size(image.status.virtual_size_bytes)}, file {size(image.status.file_size_bytes)}"),
            ("sha256", image.status.sha256),
            ("source", " ".join(filter(None, (source_of(image), image.spec.location)))),
            ("datastore", image.view.datastore),
            ("path", image.status.path),
            ("used by", counted(image.view.vms, "VM")),
            ("created", clock(image.spec.create_time)),
            ("labels", " ".join(f"{key}={value}" for key, value in sorted(image.spec.labels.items()))),
            ("description", image.spec.description),
        )
    )


@command.command(
    "delete",
    examples="""
    moln image delete debian
    moln image delete debian scratch --yes
    """,
)
@click.argument("images", type=Name("image"), nargs=-1, required=True)
@yes_option
@click.pass_obj
def delete_images(session: Session, images: Sequence[str], yes: bool) -> None:
    """Deletes images that no VM uses."""
    found = IMAGES.find_all(session.client, images)
    confirm(f"Delete {', '.join(map(IMAGES.title, found))}?", yes=yes)
    for image in found:
        session.client.unary(IMAGES.path("DeleteImage"), DeleteImageRequest(id=image.id), DeleteImageResponse)
        click.echo(f"deleted {IMAGES.title(image)}")
