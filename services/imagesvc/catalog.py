"""What the cache holds of images and datastores, typed. Reads only; every service of this package may use it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from moln.compute.v1.vm_pb2 import VmVolumes
from moln.iam.v1.user_pb2 import Role, UserSpec
from moln.image.v1.image_pb2 import (
    DatastoreSpec,
    DatastoreStatus,
    Image,
    ImageIntent,
    ImageSpec,
    ImageState,
    ImageStatus,
)
from moln.operations.v1.records_pb2 import CloudRecord
from services.common.resources.stored import stored
from services.common.store import Entry, Store
from services.imagesvc.core.images import state_of
from services.imagesvc.datastores.directory import Directory


class ImageParts(NamedTuple):
    """An image as it stands. Messages are the cache's: never write them."""

    image_id: int
    spec: ImageSpec
    intent: ImageIntent
    status: ImageStatus
    spec_entry: Entry
    intent_entry: Entry
    status_revision: int
    """0 where there is no status."""

    @property
    def state(self) -> ImageState:
        """What it amounts to."""
        return state_of(self.intent, self.status)


class DatastoreParts(NamedTuple):
    """A datastore as it stands."""

    datastore_id: int
    spec: DatastoreSpec
    status: DatastoreStatus
    spec_entry: Entry
    status_revision: int


class Catalog:
    """Images and datastores by id. `reserve_mib` stays free in every datastore."""

    def __init__(self, store: Store, reserve_mib: int) -> None:
        self._cache = store.cache
        self._reserve_mib = reserve_mib

    def image(self, image_id: int) -> ImageParts | None:
        """One image; None where there is none."""
        parts = self._cache.object("image", image_id)
        spec, intent = stored(parts.get("spec"), ImageSpec), stored(parts.get("intent"), ImageIntent)
        if spec is None or intent is None:
            return None
        status = parts.get("status")
        return ImageParts(
            image_id, spec, intent, stored(status, ImageStatus) or ImageStatus(), parts["spec"], parts["intent"],
            status.mod_revision if status else 0,
        )  # fmt: skip

    def images(self) -> Iterator[ImageParts]:
        """All images, by id."""
        for name in self._cache.ids("image"):
            if (parts := self.image(int(name))) is not None:
                yield parts

    def datastore(self, datastore_id: int) -> DatastoreParts | None:
        """One datastore; None where there is none."""
        parts = self._cache.object("datastore", datastore_id)
        spec = stored(parts.get("spec"), DatastoreSpec)
        if spec is None:
            return None
        status = parts.get("status")
        value = stored(status, DatastoreStatus) or DatastoreStatus()
        return DatastoreParts(datastore_id, spec, value, parts["spec"], status.mod_revision if status else 0)

    def datastores(self) -> Iterator[DatastoreParts]:
        """All datastores, by id."""
        for name in self._cache.ids("datastore"):
            if (parts := self.datastore(int(name))) is not None:
                yield parts

    def directory(self, parts: DatastoreParts) -> Directory:
        """The files of a datastore. Its mark is its uid."""
        return Directory(parts.spec.name, Path(parts.spec.path), parts.spec.uid, self._reserve_mib)

    def directory_of(self, datastore_id: int) -> Directory | None:
        """The same by id; None where there is no such datastore."""
        parts = self.datastore(datastore_id)
        return self.directory(parts) if parts is not None else None

    def default_datastore_id(self) -> int:
        """Where images go that name no datastore: the cloud's default, or the only one there is; else 0."""
        cloud = stored(self._cache.get("cloud", "settings"), CloudRecord)
        if cloud is not None and cloud.default_datastore_id:
            return int(cloud.default_datastore_id)
        ids = self._cache.ids("datastore")
        return int(ids[0]) if len(ids) == 1 else 0

    def saved_datastore_id(self, vm_id: int | str) -> int:
        """Where the files of a VM go that is stopped: to the image of its first disk that has one; else the default."""
        volumes = stored(self._cache.get("vm", vm_id, "volumes"), VmVolumes)
        of_images = [volume.datastore_id for volume in volumes.disks if volume.datastore_id] if volumes else []
        return of_images[0] if of_images else self.default_datastore_id()

    def users_of(self, image_id: int) -> list[int]:
        """Ids of the VMs that use an image."""
        return sorted(int(vm) for vm in self._cache.object("imageref", image_id))

    def is_admin(self, user_id: int) -> bool:
        """Whether a user is an administrator now."""
        user = stored(self._cache.get("user", user_id, "spec"), UserSpec)
        return user is not None and user.role == Role.ROLE_ADMIN

    def composed(self, parts: ImageParts) -> Image:
        """An image as clients see it."""
        image = Image(id=parts.image_id, spec=parts.spec, intent=parts.intent, status=parts.status)
        datastore = self.datastore(parts.spec.datastore_id)
        image.view.state = parts.state
        image.view.vms = len(self._cache.object("imageref", parts.image_id))
        image.view.etag = str(parts.spec_entry.mod_revision)
        image.view.resource_version = max(
            parts.spec_entry.mod_revision, parts.intent_entry.mod_revision, parts.status_revision
        )
        image.view.datastore = datastore.spec.name if datastore else ""
        return image
