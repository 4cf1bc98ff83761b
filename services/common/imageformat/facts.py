"""Format and size of an image file, by its header and then by qemu-img under limits. Opens nothing but the file."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.exec import CommandError, Limits, run_program
from services.common.imageformat.headers import HEAD_BYTES, SECTOR, read_head

FORMATS = ("qcow2", "raw")
MAX_VIRTUAL_BYTES = 64 << 40
_SOUND, _LEAKS = 0, 3
_LIMITS = Limits(seconds=60.0, memory_bytes=1 << 30, cpu_seconds=30)


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What an image file is. Sizes in bytes; `virtual_size_bytes` is what a guest sees."""

    format: str
    virtual_size_bytes: int
    file_size_bytes: int


async def info(path: Path, *, stated: str = "", what: str = "") -> ImageFacts:
    """What the file is. `stated` is the format that its owner stated, or empty; `what` names it in messages.

    Raises INVALID/IMAGE_INVALID for a file of another format, or that refers to others, is cut off or no image.
    """
    what = what or str(path)
    size, head = await asyncio.to_thread(_read, path, what)
    found = read_head(head, size)
    if found.problem:
        raise _invalid(what, found.problem)
    form = _chosen(found.format, stated, size, what)
    report = await _ask(path, form, what)
    virtual = report.get("virtual-size")
    virtual = virtual if isinstance(virtual, int) else 0
    if not 0 < virtual <= MAX_VIRTUAL_BYTES:
        raise _invalid(what, f"its virtual size of {virtual} bytes is not one of a disk")
    return ImageFacts(form, virtual, size)


def _read(path: Path, what: str) -> tuple[int, bytes]:
    try:
        with path.open("rb") as file:
            return path.stat().st_size, file.read(HEAD_BYTES)
    except OSError as err:
        raise _invalid(what, f"it cannot be read: {err.strerror or err}") from err


def _chosen(found: str, stated: str, size: int, what: str) -> str:
    """The format: as stated where the file can be that, as found where nothing is stated."""
    if stated == "raw" and found != "qcow2":
        if size % SECTOR:
            raise _invalid(
                what, f"its {size} bytes are no whole number of sectors of {SECTOR} bytes: it is no raw disk"
            )
        return "raw"
    if stated and stated != found:
        raise _invalid(what, f"it is stated to be {stated} but is {found or 'no image'}")
    if not found:
        raise _invalid(
            what, "it is not recognised as an image: neither qcow2, nor a disk, nor a CD-ROM; "
            "if it is a raw disk all the same, state its format: raw"
        )  # fmt: skip
    return found


async def _ask(path: Path, form: str, what: str) -> dict[str, object]:
    words = ["qemu-img", "info", "--output=json", "-U", "-f", form, str(path)]
    try:
        report: dict[str, object] = json.loads((await run_program(words, limits=_LIMITS)).output)
    except (CommandError, ValueError) as err:
        if isinstance(err, CommandError) and (err.completed is None or not err.completed.error_text):
            # It was not judged: it could not be run, or was killed. The image is not to blame for that.
            raise MolnError(Reason.SERVICE_UNAVAILABLE, f"{what} cannot be looked at: {err}") from err
        raise _invalid(what, f"it is no sound {form} image: {_last_words(err, path)}") from err
    if report.get("backing-filename"):
        raise _invalid(what, "it refers to a backing file; make it one file: qemu-img convert -O qcow2")
    if form == "qcow2":
        await _check_whole(path, what)
    return report


async def _check_whole(path: Path, what: str) -> None:
    """Refuses a qcow2 file whose tables point beyond its end: it was cut off, and a guest would read zeros."""
    words = ["qemu-img", "check", "-q", "-U", "-f", "qcow2", str(path)]
    try:
        status = (await run_program(words, limits=_LIMITS, check=False)).status
    except CommandError as err:
        raise MolnError(Reason.SERVICE_UNAVAILABLE, f"{what} cannot be looked at: {err}") from err
    if status not in (_SOUND, _LEAKS):
        raise _invalid(what, "it is damaged or was cut off: qemu-img check says more")


def _last_words(err: Exception, path: Path) -> str:
    """What qemu-img said, without our name for the file."""
    completed = getattr(err, "completed", None)
    said = str(completed.error_text) if completed is not None else str(err)
    return said.replace(f"'{path}'", "it").replace(str(path), "it").removeprefix("qemu-img: ")


def _invalid(what: str, problem: str) -> MolnError:
    return MolnError(Reason.IMAGE_INVALID, f"{what} cannot be used: {problem}")
