"""Images through a real channel, on a real etcd, with real files."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from moln.image.v1 import image_service_pb2
from moln.image.v1.image_pb2 import ImageSource, ImageSpec
from moln.image.v1.image_service_pb2 import CreateImageRequest, UploadImageRequest
from tests.integration.imagesvc.conftest import (
    ADMIN,
    ERROR,
    READY,
    TRUSTED,
    USER,
    Cloud,
    Images,
    Shelves,
    Start,
    files_of,
    qcow2,
    qemu_img,
    raw_disk,
    sha256,
)
from tests.support.eventually import eventually
from tests.support.reigns import Running, as_caller, refusal

MIB = 1 << 20
EMPTY, PATH, URL = ImageSource.IMAGE_SOURCE_EMPTY, ImageSource.IMAGE_SOURCE_PATH, ImageSource.IMAGE_SOURCE_URL


async def test_an_upload_is_an_image_when_it_returns(images: Images, folder: Path, shelf: Path) -> None:
    data = await qcow2(folder)
    made = await images.upload("web", data, expected_sha256=sha256(data).upper(), labels={"os": "none"})
    assert (made.view.state, made.status.format, made.status.virtual_size_bytes) == (READY, "qcow2", 8 * MIB)
    assert (made.status.sha256, made.status.file_size_bytes) == (sha256(data), len(data))
    assert (made.spec.owner, made.view.datastore, made.status.progress_percent) == ("ada", "default", 100)
    assert files_of(shelf) == [made.status.path] == [f"{made.spec.uid}.qcow2"]
    assert (shelf / made.status.path).read_bytes() == data
    assert (shelf / made.status.path).stat().st_mode & 0o777 == 0o644
    assert shelf.stat().st_mode & 0o777 == 0o711


async def test_zeros_take_no_room(images: Images, shelf: Path) -> None:
    data = raw_disk(8 * MIB)
    made = await images.upload("web", data)
    file = shelf / made.status.path
    assert (made.status.format, file.read_bytes() == data) == ("raw", True)
    assert file.stat().st_blocks * 512 < MIB
    assert made.status.sha256 == sha256(data)


@pytest.mark.parametrize(
    ("data", "fields", "reason", "words"),
    [
        (b"hello" * 100, {}, "IMAGE_INVALID", "not recognised"),
        (b"", {}, "IMAGE_INVALID", "empty"),
        (raw_disk(), {"expected_sha256": "0" * 64}, "CHECKSUM_MISMATCH", "SHA-256"),
        (raw_disk(), {"format": "qcow2"}, "IMAGE_INVALID", "stated to be qcow2"),
        (raw_disk(), {"format": "vmdk"}, "FIELD_INVALID", "qcow2 or raw"),
        (raw_disk(), {"datastore_id": 9}, "DATASTORE_NOT_FOUND", "datastore 9"),
        (raw_disk(), {"total": 7}, "UPLOAD_INCOMPLETE", "of 7 bytes"),
        (raw_disk(), {"is_whole": False}, "UPLOAD_INCOMPLETE", "nothing was kept"),
    ],
)
async def test_an_upload_that_cannot_be_leaves_nothing(
    images: Images, cloud: Cloud, shelf: Path, data: bytes, fields: dict[str, object], reason: str, words: str
) -> None:
    error = await refusal(images.upload("web", data, **fields))  # type: ignore[arg-type]
    assert (error.reason, words in error.message) == (reason, True), error.message
    assert files_of(shelf) == []
    assert cloud.image_keys() == []
    await images.upload("web", raw_disk())


async def test_an_image_that_refers_to_other_files_is_refused(images: Images, folder: Path, shelf: Path) -> None:
    (folder / "base").write_bytes(bytes(MIB))
    await qemu_img("create", "-q", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd", folder / "evil.qcow2", "1M")
    error = await refusal(images.upload("web", (folder / "evil.qcow2").read_bytes()))
    assert (error.reason, "backing file" in error.message) == ("IMAGE_INVALID", True)
    assert files_of(shelf) == []


async def test_an_upload_whose_client_goes_away_leaves_nothing(images: Images, cloud: Cloud, shelf: Path) -> None:
    gone = asyncio.Event()

    async def messages() -> object:
        yield UploadImageRequest(image=CreateImageRequest(name="web"))
        yield UploadImageRequest(data=raw_disk())
        await gone.wait()

    call = images.stub.UploadImage(messages(), metadata=as_caller(ADMIN))  # type: ignore[arg-type]
    await eventually(lambda: any(name.endswith(".part") for name in files_of(shelf)))
    call.cancel()
    await eventually(lambda: files_of(shelf) == [])
    assert cloud.image_keys() == []


async def test_of_two_uploads_of_one_name_one_stays(images: Images, shelf: Path, cloud: Cloud) -> None:
    results = await asyncio.gather(*(images.upload("web", raw_disk()) for _ in range(2)), return_exceptions=True)
    assert sum(isinstance(result, grpc.RpcError) for result in results) == 1
    assert len(files_of(shelf)) == 1
    assert len(cloud.image_keys()) == 4


async def test_the_same_request_makes_one_image(images: Images, shelf: Path) -> None:
    first = await images.upload("web", raw_disk(), request_id="r1")
    assert (await images.upload("web", raw_disk(), request_id="r1")).id == first.id
    error = await refusal(images.upload("other", raw_disk(), request_id="r1"))
    assert error.reason == "REQUEST_ID_REUSED"
    assert len(files_of(shelf)) == 1
    empty = [await images.ready("empty", source=EMPTY, size_mib=1, request_id="r2") for _ in range(2)]
    assert empty[0].id == empty[1].id


async def test_an_upload_begins_with_what_it_is(images: Images) -> None:
    assert (await refusal(images.send([UploadImageRequest(data=b"x")]))).fields[0][0] == "image"
    assert (await refusal(images.send([]))).fields[0][0] == "image"


@pytest.mark.parametrize(("form", "real"), [("", "qcow2"), ("raw", "raw"), ("qcow2", "qcow2")])
async def test_an_empty_image_is_of_the_size_asked_for(images: Images, shelf: Path, form: str, real: str) -> None:
    made = await images.ready("empty", source=EMPTY, size_mib=64, format=form)
    assert (made.view.state, made.status.format, made.status.virtual_size_bytes) == (READY, real, 64 * MIB)
    assert (shelf / made.status.path).stat().st_blocks * 512 < MIB


async def test_a_path_on_the_server_needs_its_capability(images: Images, folder: Path) -> None:
    source = folder / "disk.raw"
    source.write_bytes(raw_disk())
    error = await refusal(images.by(USER).create("web", source=PATH, location=str(source)))
    assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "CAPABILITY_MISSING")
    made = await images.by(TRUSTED).ready("web", source=PATH, location=str(source))
    assert (made.view.state, made.status.sha256) == (READY, sha256(raw_disk()))


@pytest.mark.parametrize("location", ["/nowhere/at/all", "/dev/zero", "/etc"])
async def test_a_path_that_is_no_file_makes_an_error_with_the_reason(
    images: Images, shelf: Path, location: str
) -> None:
    made = await images.ready("web", source=PATH, location=location)
    assert (made.view.state, made.status.reason) == (ERROR, "IMAGE_INVALID")
    assert location in made.status.message
    assert files_of(shelf) == []


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"source": 0}, "source"),
        ({"source": ImageSource.IMAGE_SOURCE_UPLOAD}, "source"),
        ({"source": EMPTY}, "size_mib"),
        ({"source": EMPTY, "size_mib": 1, "location": "x"}, "location"),
        ({"source": URL, "location": "ftp://x/y"}, "location"),
        ({"source": URL, "location": "http://me:secret@x/y"}, "location"),
        ({"source": URL}, "location"),
        ({"source": PATH, "location": "relative"}, "location"),
        ({"source": URL, "location": "http://x/", "expected_sha256": "zz"}, "expected_sha256"),
        ({"source": URL, "location": "http://x/", "size_mib": 5}, "size_mib"),
        ({"source": EMPTY, "size_mib": 1, "labels": {"": "x"}}, "labels"),
    ],
)
async def test_what_cannot_be_is_refused_by_field(images: Images, fields: dict[str, object], path: str) -> None:
    error = await refusal(images.create("web", **fields))
    assert (error.code, error.fields[0][0]) == (grpc.StatusCode.INVALID_ARGUMENT, path)


async def test_only_administrators_make_images_public(images: Images) -> None:
    bob = images.by(USER)
    assert (await refusal(bob.create("web", source=EMPTY, size_mib=1, is_public=True))).reason == "ROLE_MISSING"
    mine = await images.ready("public", source=EMPTY, size_mib=1, is_public=True)
    hidden = await images.ready("hidden", source=EMPTY, size_mib=1)
    assert [each.spec.name for each in (await bob.list()).images] == ["public"]
    assert (await refusal(bob.get(hidden.id))).reason == "IMAGE_NOT_FOUND"
    assert (await refusal(bob.delete(mine.id))).reason == "IMAGE_NOT_FOUND"


async def test_lists_are_filtered_and_paged(images: Images) -> None:
    for number in range(4):
        await images.ready(f"i{number}", source=EMPTY, size_mib=1, format="raw" if number % 2 else "qcow2")
    raw = await images.list(filter="format=raw state=ready")
    assert [each.spec.name for each in raw.images] == ["i1", "i3"]
    first = await images.list(page_size=3)
    rest = await images.list(page_size=3, page_token=first.next_page_token)
    assert [each.spec.name for each in (*first.images, *rest.images)] == ["i0", "i1", "i2", "i3"]
    assert "one of" in (await refusal(images.list(filter="state=REDY"))).message


async def test_an_update_changes_what_may_change(images: Images) -> None:
    made = await images.ready("web", source=EMPTY, size_mib=1)
    changed = await images.update(made.id, ImageSpec(description="new", labels={"a": "b"}), "description", "labels")
    assert (changed.spec.description, dict(changed.spec.labels)) == ("new", {"a": "b"})
    assert (await refusal(images.update(made.id, ImageSpec(name="x"), "name"))).reason == "FIELD_IMMUTABLE"
    error = await refusal(images.update(made.id, ImageSpec(), "labels", etag=made.view.etag))
    assert (error.code, error.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")


async def test_a_deleted_image_leaves_no_file_and_no_key(images: Images, cloud: Cloud, shelf: Path) -> None:
    made = await images.upload("web", raw_disk())
    await images.delete(made.id)
    await eventually(lambda: cloud.image_keys() == [] and files_of(shelf) == [])
    assert (await refusal(images.get(made.id))).reason == "IMAGE_NOT_FOUND"
    assert (await images.upload("web", raw_disk())).id > made.id


async def test_an_image_that_vms_use_stays(images: Images, cloud: Cloud) -> None:
    made = await images.upload("web", raw_disk())
    vms = [await cloud.vm(made.id) for _ in range(2)]
    await eventually(lambda: all(cloud.sources(vm) for vm in vms))
    error = await refusal(images.delete(made.id))
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "IMAGE_IN_USE")
    assert "VMs 1, 2" in error.message
    assert (await images.get(made.id)).view.vms == 2
    for vm in vms:
        await cloud.unrefer(vm, made.id)
    await eventually(lambda: _deleted(images, made.id))


async def test_only_the_leader_writes(images: Images, start: Start) -> None:
    async with start() as standby:
        error = await refusal(Images(standby).upload("web", raw_disk()))
        assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "NOT_LEADER")


async def test_an_image_that_is_too_large_is_refused_early(cloud: Cloud, start: Start, shelf: Path) -> None:
    async with start(max_image_gib=0) as running:
        await eventually(lambda: running.is_leader)
        await _shelf(running, shelf)
        images = Images(running)
        assert "at most 0" in (await refusal(images.upload("web", raw_disk()))).message
        assert "more than" in (await refusal(images.upload("web", raw_disk(), total=0))).message
        assert files_of(shelf) == []


async def test_a_full_datastore_refuses_early(cloud: Cloud, start: Start, shelf: Path) -> None:
    async with start(reserve_mib=1 << 30) as running:
        await eventually(lambda: running.is_leader)
        await _shelf(running, shelf)
        images = Images(running)
        for call in (images.upload("web", raw_disk()), images.create("e", source=EMPTY, size_mib=1)):
            error = await refusal(call)
            assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "DATASTORE_FULL")
        assert cloud.image_keys() == []


async def test_replies_carry_their_revision(images: Images) -> None:
    request = image_service_pb2.ListImagesRequest()
    call = images.stub.ListImages(request, metadata=as_caller(ADMIN))
    answer = await call
    trailers = dict(await call.trailing_metadata())
    assert int(str(trailers["moln-revision"])) >= answer.revision


async def _deleted(images: Images, image_id: int) -> bool:
    try:
        await images.delete(image_id)
    except grpc.RpcError:
        return False
    return True


async def _shelf(running: Running, shelf: Path) -> None:
    await Shelves(running).create("default", shelf)
