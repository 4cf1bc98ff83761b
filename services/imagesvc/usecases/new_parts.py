"""The parts of a new image as they are stored. Pure."""

from __future__ import annotations

from moln.image.v1.image_pb2 import ImageDesired, ImageIntent, ImageSource, ImageSpec, ImageState, ImageStatus
from moln.image.v1.image_service_pb2 import CreateImageRequest
from services.common.domain.caller import Caller
from services.common.domain.keys import SCHEMA_VERSION


def spec_of(request: CreateImageRequest, uid: str, datastore_id: int, caller: Caller, *, is_upload: bool) -> ImageSpec:
    """The spec of a request that has been checked, without time and cause."""
    return ImageSpec(
        uid=uid,
        name=request.name,
        owner_id=caller.user_id,
        owner=caller.name,
        source=ImageSource.IMAGE_SOURCE_UPLOAD if is_upload else request.source,
        location=request.location,
        size_mib=request.size_mib,
        datastore_id=datastore_id,
        is_public=request.is_public,
        labels=request.labels,
        expected_sha256=request.expected_sha256.lower(),
        format=request.format,
        description=request.description,
        schema_version=SCHEMA_VERSION,
    )


def intent_of(spec: ImageSpec) -> ImageIntent:
    """The intent of a new image."""
    return ImageIntent(
        uid=spec.uid, desired=ImageDesired.IMAGE_DESIRED_READY, cause=spec.cause, schema_version=SCHEMA_VERSION
    )


def importing(spec: ImageSpec) -> ImageStatus:
    """The status of a new image whose bytes are still to come."""
    return ImageStatus(
        uid=spec.uid, state=ImageState.IMAGE_STATE_IMPORTING, cause=spec.cause, schema_version=SCHEMA_VERSION
    )
