"""Datastores: folders with a mark, watched."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from moln.image.v1.image_pb2 import ImageSource
from moln.operations.v1.records_pb2 import CloudRecord
from services.common.store import Txn, key
from tests.integration.imagesvc.conftest import Cloud, Images, Shelves, files_of, raw_disk
from tests.support.eventually import eventually
from tests.support.reigns import Running, refusal

MARK = ".moln-datastore"


async def test_a_datastore_gets_a_folder_with_a_mark(shelves: Shelves, shelf: Path) -> None:
    made = await shelves.create("default", shelf / "deep" / "er")
    assert made.status.is_ready
    assert (shelf / "deep" / "er" / MARK).read_text().strip() == made.status.mark == made.spec.uid
    assert 0 < made.status.free_mib <= made.status.total_mib
    assert await shelves.list() == [made]


@pytest.mark.parametrize("path", ["", "relative", "/", "/a/../b"])
async def test_a_path_must_be_absolute(shelves: Shelves, path: str) -> None:
    error = await refusal(shelves.create("default", path))
    assert (error.code, error.fields[0][0]) == (grpc.StatusCode.INVALID_ARGUMENT, "path")


async def test_names_and_folders_are_taken_once(shelves: Shelves, shelf: Path) -> None:
    await shelves.create("default", shelf)
    assert (await refusal(shelves.create("default", shelf / "x"))).reason == "NAME_TAKEN"
    assert (await refusal(shelves.create("other", shelf))).fields[0][0] == "path"
    assert (await refusal(shelves.create("7", shelf / "x"))).fields[0][0] == "name"


async def test_the_same_request_makes_one_datastore(shelves: Shelves, shelf: Path) -> None:
    first = await shelves.create("default", shelf, request_id="r1")
    assert (await shelves.create("default", shelf, request_id="r1")).id == first.id


async def test_a_folder_that_is_anothers_is_left_alone(shelves: Shelves, shelf: Path) -> None:
    shelf.mkdir()
    (shelf / MARK).write_text("somebody else's\n")
    made = await shelves.create("default", shelf)
    assert not made.status.is_ready
    assert "somebody else's" in made.status.message
    assert (shelf / MARK).read_text() == "somebody else's\n"
    error = await refusal(Images(shelves.running).create("e", source=ImageSource.IMAGE_SOURCE_EMPTY, size_mib=1))
    assert (error.code, "somebody else's" in error.message) == (grpc.StatusCode.FAILED_PRECONDITION, True)


async def test_a_file_is_no_datastore(shelves: Shelves, shelf: Path) -> None:
    shelf.write_text("a file")
    made = await shelves.create("default", shelf)
    assert (made.status.is_ready, "not a directory" in made.status.message) == (False, True)


async def test_a_disk_that_goes_away_is_noticed_and_not_made_anew(
    images: Images, shelves: Shelves, shelf: Path
) -> None:
    away = shelf.with_name("away")
    shelf.rename(away)

    async def state() -> bool:
        return (await shelves.get(1)).status.is_ready

    await eventually(lambda: _not(state))
    shelf.mkdir()
    await eventually(lambda: _says(shelves, "not mounted"))
    assert list(shelf.iterdir()) == []
    shelf.rmdir()
    away.rename(shelf)
    await eventually(state)


async def test_a_datastore_with_images_stays(images: Images, shelves: Shelves, shelf: Path, cloud: Cloud) -> None:
    made = await images.upload("web", raw_disk())
    error = await refusal(shelves.delete(1))
    assert (error.reason, "web" in error.message) == ("DATASTORE_IN_USE", True)
    await images.delete(made.id)
    await eventually(lambda: cloud.image_keys() == [])
    await shelves.delete(1)
    assert list(shelf.iterdir()) == []
    assert (await refusal(shelves.get(1))).reason == "DATASTORE_NOT_FOUND"
    assert "moln datastore create" in (await refusal(images.upload("web", raw_disk()))).message
    assert (await shelves.create("default", shelf)).status.is_ready


async def test_the_default_datastore_stays(shelves: Shelves, shelf: Path, cloud: Cloud) -> None:
    made = await shelves.create("default", shelf)
    record = CloudRecord(uid="x", default_datastore_id=made.id)
    await cloud.store.commit(Txn().put(key("cloud", "settings"), record))
    error = await eventually(lambda: refusal(shelves.delete(made.id)))
    assert error.reason == "DEFAULT_OBJECT"


async def test_with_two_datastores_the_default_takes_what_names_none(
    images: Images, shelves: Shelves, shelf: Path, cloud: Cloud
) -> None:
    second = await shelves.create("second", shelf.with_name("second"))
    assert (await refusal(images.upload("web", raw_disk()))).reason == "DATASTORE_NOT_FOUND"
    record = CloudRecord(uid="x", default_datastore_id=second.id)
    await cloud.store.commit(Txn().put(key("cloud", "settings"), record))

    async def stored() -> bool:
        try:
            return (await images.upload("web", raw_disk())).view.datastore == "second"
        except grpc.RpcError:
            return False

    await eventually(stored)
    assert files_of(shelf) == []


async def test_room_can_be_scraped(images: Images, imagesvc: Running) -> None:
    await eventually(lambda: imagesvc.metric("datastore_free_bytes", datastore="default") > 0)
    assert imagesvc.metric("datastore_is_ready", datastore="default") == 1.0


async def _not(check: object) -> bool:
    assert callable(check)
    return not await check()


async def _says(shelves: Shelves, words: str) -> bool:
    return words in (await shelves.get(1)).status.message
