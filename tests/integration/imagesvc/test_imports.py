"""Images that the service fetches: from URLs that answer, or do not, or lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from moln.image.v1.image_pb2 import ImageSource, ImageState
from services.common.runtime import Backoff
from services.imagesvc.controllers import imports
from tests.integration.imagesvc.conftest import (
    ERROR,
    READY,
    USER,
    Cloud,
    Images,
    Shelves,
    Start,
    files_of,
    qcow2,
    raw_disk,
    sha256,
)
from tests.integration.imagesvc.web import Web
from tests.support.eventually import eventually
from tests.support.reigns import refusal

URL = ImageSource.IMAGE_SOURCE_URL
IMPORTING = ImageState.IMAGE_STATE_IMPORTING


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries follow at once, progress is said at once."""
    monkeypatch.setattr(imports, "BACKOFF", Backoff(first=0.01, most=0.01))
    monkeypatch.setattr(imports, "PROGRESS_SECONDS", 0.0)


async def test_a_url_becomes_an_image(images: Images, web: Web, folder: Path, shelf: Path) -> None:
    data = await qcow2(folder)
    made = await images.from_url("web", web.file("/disk", data), expected_sha256=sha256(data))
    assert (made.view.state, made.status.format, made.status.sha256) == (READY, "qcow2", sha256(data))
    assert (shelf / made.status.path).read_bytes() == data
    assert files_of(shelf) == [made.status.path]


async def test_redirects_are_followed_a_few_times(images: Images, web: Web) -> None:
    web.file("/disk", raw_disk())
    web.redirect("/b", "/disk")
    assert (await images.from_url("web", web.redirect("/a", "/b"))).view.state == READY
    made = await images.from_url("round", web.redirect("/c", "/c"))
    assert (made.view.state, made.status.reason) == (ERROR, "DOWNLOAD_FAILED")
    assert "more than 5" in made.status.message


async def test_a_redirect_to_a_file_of_the_server_is_not_followed(images: Images, web: Web) -> None:
    made = await images.from_url("web", web.redirect("/a", "file:///etc/passwd"))
    assert (made.view.state, made.status.reason) == (ERROR, "DOWNLOAD_FAILED")


async def test_what_the_server_says_is_the_reason(images: Images, web: Web, shelf: Path) -> None:
    url = web.status("/gone", 404)
    made = await images.from_url("web", url)
    assert (made.view.state, made.status.reason) == (ERROR, "DOWNLOAD_FAILED")
    assert url in made.status.message
    assert "404" in made.status.message
    assert web.asked == ["/gone"]
    assert files_of(shelf) == []


async def test_nobody_listening_is_the_reason_after_a_few_tries(images: Images, free_port: object) -> None:
    assert callable(free_port)
    made = await images.from_url("web", f"http://127.0.0.1:{free_port()}/disk")
    assert (made.view.state, made.status.reason) == (ERROR, "DOWNLOAD_FAILED")


async def test_a_server_that_recovers_is_asked_again(images: Images, web: Web) -> None:
    web.status("/busy", 503)
    data = raw_disk()
    made = await images.from_url("web", web.broken("/disk", data, [1000, len(data) // 2]))
    assert (made.view.state, made.status.sha256) == (READY, sha256(data))
    assert web.asked.count("/disk") == 3
    assert (await images.from_url("busy", web.url("/busy"))).view.state == ERROR
    assert web.asked.count("/busy") == 4


@pytest.mark.parametrize(
    ("data", "fields", "reason"),
    [
        (b"<html>not found</html>", {}, "IMAGE_INVALID"),
        (raw_disk(), {"expected_sha256": "0" * 64}, "CHECKSUM_MISMATCH"),
        (raw_disk(), {"format": "qcow2"}, "IMAGE_INVALID"),
    ],
)
async def test_what_came_must_be_what_was_meant(
    images: Images, web: Web, shelf: Path, data: bytes, fields: dict[str, object], reason: str
) -> None:
    made = await images.from_url("web", web.file("/disk", data), **fields)
    assert (made.view.state, made.status.reason) == (ERROR, reason)
    assert files_of(shelf) == []
    await images.delete(made.id)


async def test_users_do_not_fetch_from_the_services_own_machine(images: Images, web: Web) -> None:
    made = await images.by(USER).from_url("web", web.file("/disk", raw_disk()))
    assert (made.view.state, made.status.reason) == (ERROR, "DOWNLOAD_FAILED")
    assert "only administrators" in made.status.message


async def test_progress_is_seen(images: Images, web: Web) -> None:
    url, go = web.slow("/disk", raw_disk(8 << 20))
    made = await images.create("web", source=URL, location=url)
    assert made.view.state == IMPORTING

    async def half() -> bool:
        return 40 <= (await images.get(made.id)).status.progress_percent < 100

    await eventually(half)
    go.set()
    assert (await images.rested(made.id)).view.state == READY


async def test_deleting_an_image_ends_its_import(images: Images, web: Web, cloud: Cloud, shelf: Path) -> None:
    url, _ = web.slow("/disk", raw_disk())
    made = await images.create("web", source=URL, location=url)
    await eventually(lambda: any(name.endswith(".part") for name in files_of(shelf)))
    await images.delete(made.id)
    await eventually(lambda: cloud.image_keys() == [] and files_of(shelf) == [])


async def test_an_import_is_begun_anew_by_the_next_leader(cloud: Cloud, start: Start, web: Web, shelf: Path) -> None:
    data = raw_disk()
    url, go = web.slow("/disk", data)
    async with start() as first:
        await eventually(lambda: first.is_leader)
        await Shelves(first).create("default", shelf)
        made = await Images(first).create("web", source=URL, location=url)
        await eventually(lambda: any(name.endswith(".part") for name in files_of(shelf)))
    go.set()
    async with start() as second:
        await eventually(lambda: second.is_leader)
        found = await Images(second).rested(made.id)
    assert (found.view.state, found.status.sha256) == (READY, sha256(data))
    assert files_of(shelf) == [found.status.path]


async def test_a_name_is_free_again_once_a_failed_import_is_deleted(images: Images, web: Web) -> None:
    made = await images.from_url("web", web.status("/gone", 404))
    assert (await refusal(images.create("web", source=URL, location=web.url("/gone")))).reason == "NAME_TAKEN"
    await images.delete(made.id)

    async def again() -> bool:
        try:
            await images.create("web", source=ImageSource.IMAGE_SOURCE_EMPTY, size_mib=1)
        except Exception:  # noqa: BLE001  not yet
            return False
        return True

    await eventually(again)
