"""What images amount to, and how they are filtered. Pure."""

from __future__ import annotations

from moln.image.v1.image_pb2 import DESCRIPTOR, Image
from services.common.filters import Vocabulary

_PREFIX = "IMAGE_STATE_"
STATES = {each.number: each.name.removeprefix(_PREFIX) for each in DESCRIPTOR.enum_types_by_name["ImageState"].values}

IMAGES: Vocabulary[Image] = Vocabulary(
    keys={
        "id": lambda image: image.id,
        "name": lambda image: image.spec.name,
        "owner": lambda image: image.spec.owner,
        "state": lambda image: STATES.get(image.view.state, ""),
        "reason": lambda image: image.status.reason,
        "format": lambda image: image.status.format,
        "datastore": lambda image: image.view.datastore,
        "public": lambda image: str(image.spec.is_public).lower(),
    },
    words={"state": frozenset(STATES.values())},
    labels=lambda image: image.spec.labels,
)
"""What lists of images can be filtered by."""
