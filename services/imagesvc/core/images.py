"""Which images may be created and changed, and their parts as they are stored. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from moln.image.v1.image_pb2 import ImageDesired, ImageIntent, ImageSource, ImageState, ImageStatus
from moln.image.v1.image_service_pb2 import CreateImageRequest
from services.common.domain.caller import Caller, Capability
from services.common.domain.errors import invalid
from services.common.domain.ids import check_name
from services.common.domain.reasons import Reason
from services.common.resources.labels import check_labels
from services.imagesvc.core.urls import check_url

FORMATS = ("", "qcow2", "raw")
CHANGEABLE = ("labels", "description", "is_public")
"""Fields of `spec` that UpdateImage may change."""
MAX_DESCRIPTION_BYTES = 4096
MAX_LOCATION_BYTES = 4096
MAX_SIZE_MIB = 64 << 20

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_UPLOAD, _PATH = ImageSource.IMAGE_SOURCE_UPLOAD, ImageSource.IMAGE_SOURCE_PATH
_URL, _EMPTY = ImageSource.IMAGE_SOURCE_URL, ImageSource.IMAGE_SOURCE_EMPTY


def check_request(request: CreateImageRequest, caller: Caller, *, is_upload: bool) -> None:
    """Raises INVALID naming the first field that is wrong, or DENIED where the caller may not say it."""
    check_name("name", request.name)
    _check_source(request, caller, is_upload=is_upload)
    if request.format not in FORMATS:
        raise invalid("format", f"'{request.format}' is none; images are qcow2 or raw")
    if request.expected_sha256 and not _SHA256.fullmatch(request.expected_sha256):
        raise invalid("expected_sha256", "takes 64 hexadecimal digits")
    check_free_fields("", request.labels, request.description, caller, is_public=request.is_public)


def check_free_fields(
    path: str, labels: Mapping[str, str], description: str, caller: Caller, *, is_public: bool
) -> None:
    """The fields that may be changed later too. `path` stands before their names, with its dot."""
    if is_public and not caller.is_admin:
        problem = "makes an image everyone's, which only administrators may do"
        raise invalid(f"{path}is_public", problem, reason=Reason.ROLE_MISSING)
    check_labels(f"{path}labels", labels)
    if len(description.encode()) > MAX_DESCRIPTION_BYTES:
        raise invalid(f"{path}description", f"is longer than {MAX_DESCRIPTION_BYTES} bytes")


def _check_source(request: CreateImageRequest, caller: Caller, *, is_upload: bool) -> None:
    source = request.source
    if is_upload:
        if source not in (ImageSource.IMAGE_SOURCE_UNSPECIFIED, _UPLOAD):
            raise invalid("image.source", "is UPLOAD here: the bytes follow; CreateImage takes the other sources")
        return
    if source == _UPLOAD:
        raise invalid("source", "UPLOAD goes with the call UploadImage, which takes the bytes")
    if source not in (_PATH, _URL, _EMPTY):
        raise invalid("source", "is required: URL, PATH or EMPTY", reason=Reason.FIELD_REQUIRED)
    if source == _EMPTY:
        _check_empty(request)
    elif request.size_mib:
        raise invalid("size_mib", "is for empty images; others are as large as their file says")
    if source == _PATH:
        caller.require(Capability.HOST_PATH, "location: a path on the server")
        _check_path(request.location)
    if source == _URL:
        check_url("location", request.location)


def _check_empty(request: CreateImageRequest) -> None:
    if not 1 <= request.size_mib <= MAX_SIZE_MIB:
        raise invalid("size_mib", f"must be 1 to {MAX_SIZE_MIB} for an empty image")
    for name in ("location", "expected_sha256"):
        if getattr(request, name):
            raise invalid(name, "is not for empty images")


def _check_path(path: str) -> None:
    if not path.startswith("/") or "\0" in path or len(path.encode()) > MAX_LOCATION_BYTES:
        raise invalid("location", "must be an absolute path on the machine of the image service")


def state_of(intent: ImageIntent, status: ImageStatus) -> ImageState:
    """What an image amounts to."""
    if intent.desired == ImageDesired.IMAGE_DESIRED_DELETED:
        return ImageState.IMAGE_STATE_DELETING
    return status.state or ImageState.IMAGE_STATE_IMPORTING


def file_name(uid: str, form: str) -> str:
    """Name of an image's file in its datastore. Nobody guesses it: the uid is known to those who may see the image."""
    return f"{uid}.{form}"
