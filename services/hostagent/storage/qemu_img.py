"""Runs qemu-img. The format is always stated, never guessed; what an image may refer to is nothing outside itself.

Images come from users: every run is bounded in time, memory and CPU.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.exec.program import CommandError, Limits, run_program

Words = Sequence[str | Path]

FORMATS = frozenset({"qcow2", "raw"})
GIB = 1024**3
_QUICK = Limits(seconds=60.0, memory_bytes=GIB, cpu_seconds=30)
_COPY = Limits(seconds=3600.0, memory_bytes=2 * GIB, cpu_seconds=3600)


class StorageError(MolnError):
    """A disk could not be made; the message names the file."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What an image file is. Sizes in bytes; `virtual_size_bytes` is what a guest sees."""

    format: str
    virtual_size_bytes: int
    backing_file: str
    data_file: str


@dataclass(frozen=True, slots=True)
class InnerSnapshot:
    """A snapshot within a qcow2 disk."""

    name: str
    time_ns: int
    has_memory: bool


async def inspect(path: Path, format: str) -> ImageFacts:
    """Reads an image as `format`. Raises StorageError IMAGE_INVALID where it is none."""
    words: Words = ["qemu-img", "info", "--output=json", "-U", "-f", _known(format), path]
    try:
        found = json.loads((await run_program(words, limits=_QUICK)).output)
    except (CommandError, ValueError) as err:
        raise StorageError(Reason.IMAGE_INVALID, f"{path} cannot be read as {format}: {err}") from err
    details = found.get("format-specific", {}).get("data", {})
    return ImageFacts(
        format=str(found["format"]),
        virtual_size_bytes=int(found["virtual-size"]),
        backing_file=str(found.get("backing-filename", "")),
        data_file=str(details.get("data-file", "")),
    )


async def check_standalone(path: Path, format: str) -> ImageFacts:
    """Like `inspect`, and refuses an image that refers to other files: it could show a guest any file of the node."""
    facts = await inspect(path, format)
    if facts.backing_file or facts.data_file:
        other = facts.backing_file or facts.data_file
        message = f"{path} refers to another file ({other}): make it one file with `qemu-img convert`"
        raise StorageError(Reason.IMAGE_INVALID, message)
    return facts


async def create_overlay(path: Path, base: Path, base_format: str, size_bytes: int = 0) -> None:
    """A qcow2 that reads from `base` and keeps what is written; larger than the base where `size_bytes` says so."""
    words: Words = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", _known(base_format), "-b", base.absolute(), path]
    await _make(path, [*words, *_size(size_bytes)], _QUICK)


async def create_blank(path: Path, format: str, size_bytes: int) -> None:
    """An empty disk; takes no room before something is written."""
    await _make(path, ["qemu-img", "create", "-q", "-f", _known(format), path, *_size(size_bytes)], _QUICK)


async def convert(source: Path, source_format: str, path: Path, format: str) -> None:
    """A whole copy in another format; zeros take no room."""
    words: Words = ["qemu-img", "convert", "-q", "-f", _known(source_format), "-O", _known(format), source, path]
    await _make(path, words, _COPY)


async def enlarge(path: Path, format: str, size_bytes: int) -> None:
    """Makes a disk larger; never smaller."""
    await _make(path, ["qemu-img", "resize", "-q", "-f", _known(format), path, str(size_bytes)], _QUICK)


async def rebase(path: Path, base: Path, base_format: str) -> None:
    """A disk that reads from a copy of its base elsewhere: only the reference is changed."""
    words: Words = ["qemu-img", "rebase", "-q", "-u", "-f", "qcow2", "-F", _known(base_format), "-b", base.absolute()]
    await _make(path, [*words, path], _QUICK)


async def inner_snapshots(path: Path, format: str) -> list[InnerSnapshot]:
    """The snapshots within a disk that no guest uses, oldest first."""
    if format != "qcow2":
        return []
    words: Words = ["qemu-img", "info", "--output=json", "-U", "-f", "qcow2", path]
    try:
        found = json.loads((await run_program(words, limits=_QUICK)).output).get("snapshots", [])
        made = [
            InnerSnapshot(
                str(each["name"]),
                int(each["date-sec"]) * 10**9 + int(each["date-nsec"]),
                int(each["vm-state-size"]) > 0,
            )
            for each in found
        ]
    except (CommandError, ValueError, KeyError) as err:
        raise StorageError(Reason.OPERATION_FAILED, f"the snapshots in {path.name} cannot be read: {err}") from err
    return sorted(made, key=lambda each: each.time_ns)


async def change_snapshot(path: Path, change: str, name: str) -> None:
    """`-c` creates a snapshot within a qcow2 disk that no guest uses, `-a` goes back to it, `-d` deletes it."""
    try:
        await run_program(["qemu-img", "snapshot", "-q", change, name, path], limits=_COPY)
    except CommandError as err:
        raise StorageError(Reason.OPERATION_FAILED, f"{path.name}: {err}") from err


async def go_back(path: Path, name: str, least_bytes: int) -> None:
    """`-a`, and the disk is no smaller than it was, or than `least_bytes`: one that has grown since stays as large."""
    before = (await inspect(path, "qcow2")).virtual_size_bytes
    await change_snapshot(path, "-a", name)
    wanted = max(before, least_bytes)
    if (await inspect(path, "qcow2")).virtual_size_bytes < wanted:
        await enlarge(path, "qcow2", wanted)


async def _make(path: Path, words: Words, limits: Limits) -> None:
    try:
        await run_program(words, limits=limits)
    except CommandError as err:
        raise StorageError(Reason.STAGING_FAILED, f"{path.name} cannot be made: {err}") from err


def _known(format: str) -> str:
    if format not in FORMATS:
        raise StorageError(Reason.IMAGE_INVALID, f"the format {format!r} is not one of {', '.join(sorted(FORMATS))}")
    return format


def _size(size_bytes: int) -> list[str]:
    return [str(size_bytes)] if size_bytes else []
