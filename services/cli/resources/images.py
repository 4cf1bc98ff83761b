"""Images, and the datastores that hold them."""

from __future__ import annotations

from moln.image.v1.datastore_service_pb2 import GetDatastoreRequest, ListDatastoresRequest, ListDatastoresResponse
from moln.image.v1.image_pb2 import DESCRIPTOR, Datastore, Image
from moln.image.v1.image_service_pb2 import GetImageRequest, ListImagesRequest, ListImagesResponse
from services.cli.documents import enum_word
from services.cli.objects import Resource
from services.cli.sizes import age, mib, size
from services.cli.tables import Column

_STATES = DESCRIPTOR.enum_types_by_name["ImageState"]
_SOURCES = DESCRIPTOR.enum_types_by_name["ImageSource"]


def state_of(image: Image) -> str:
    """`READY`."""
    return enum_word(_STATES, image.view.state)


def source_of(image: Image) -> str:
    """`UPLOAD`."""
    return enum_word(_SOURCES, image.spec.source)


def readiness_of(datastore: Datastore) -> str:
    """`READY`, or `ERROR`."""
    return "READY" if datastore.status.is_ready else "ERROR"


IMAGES: Resource[Image] = Resource(
    word="image",
    service="moln.image.v1.ImageService",
    message=Image,
    get_request=GetImageRequest,
    list_request=ListImagesRequest,
    list_reply=ListImagesResponse,
    items="images",
    name_of=lambda image: image.spec.name,
    columns=(
        Column("ID", lambda image: str(image.id), is_number=True),
        Column("NAME", lambda image: image.spec.name),
        Column("STATE", state_of, is_state=True),
        Column("FORMAT", lambda image: image.status.format),
        Column("SIZE", lambda image: size(image.status.virtual_size_bytes), is_number=True),
        Column("FILE", lambda image: size(image.status.file_size_bytes), is_wide=True, is_number=True),
        Column("VMS", lambda image: str(image.view.vms), is_number=True),
        Column("DATASTORE", lambda image: image.view.datastore),
        Column("OWNER", lambda image: image.spec.owner),
        Column("PUBLIC", lambda image: "yes" if image.spec.is_public else "no", is_wide=True),
        Column("SOURCE", source_of, is_wide=True),
        Column("AGE", lambda image: age(image.spec.create_time)),
        Column("REASON", lambda image: image.status.reason),
        Column("MESSAGE", lambda image: image.status.message, is_wide=True),
    ),
)

DATASTORES: Resource[Datastore] = Resource(
    word="datastore",
    service="moln.image.v1.DatastoreService",
    message=Datastore,
    get_request=GetDatastoreRequest,
    list_request=ListDatastoresRequest,
    list_reply=ListDatastoresResponse,
    items="datastores",
    name_of=lambda datastore: datastore.spec.name,
    has_filter=False,
    columns=(
        Column("ID", lambda datastore: str(datastore.id), is_number=True),
        Column("NAME", lambda datastore: datastore.spec.name),
        Column("STATE", readiness_of, is_state=True),
        Column("KIND", lambda datastore: datastore.spec.kind),
        Column("FREE", lambda datastore: mib(datastore.status.free_mib), is_number=True),
        Column("TOTAL", lambda datastore: mib(datastore.status.total_mib), is_number=True),
        Column("PATH", lambda datastore: datastore.spec.path),
        Column("AGE", lambda datastore: age(datastore.spec.create_time), is_wide=True),
        Column("MESSAGE", lambda datastore: datastore.status.message, is_wide=True),
    ),
)
