"""The comments of the contract, from the descriptor set that `make proto` leaves with them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet

DESCRIPTORS = Path(__file__).resolve().parent.parent / "protos" / "gen" / "moln.binpb"
_FILE_ENUMS, _ENUM_VALUES = 5, 2
_FILE_SERVICES, _SERVICE_METHODS = 6, 2


@cache
def _comments() -> dict[tuple[str, tuple[int, ...]], str]:
    """(file, path of the element) → its comment in one line."""
    files = FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())
    return {
        (file.name, tuple(location.path)): " ".join(location.leading_comments.split())
        for file in files.file
        for location in file.source_code_info.location
        if location.leading_comments
    }


def comment_of(element: Any) -> str:
    """The comment of a service, a method, or a value of an enum that stands on its own."""
    return _comments().get((_file_of(element).name, _path(element)), "")


def _file_of(element: Any) -> Any:
    for holder in ("containing_service", "type"):
        parent = getattr(element, holder, None)
        if parent is not None and hasattr(parent, "file"):
            return parent.file
    return element.file


def _path(element: Any) -> tuple[int, ...]:
    kind = type(element).__name__
    if kind == "ServiceDescriptor":
        return (_FILE_SERVICES, element.index)
    if kind == "MethodDescriptor":
        return (_FILE_SERVICES, element.containing_service.index, _SERVICE_METHODS, element.index)
    return (
        _FILE_ENUMS,
        list(element.type.file.enum_types_by_name.values()).index(element.type),
        _ENUM_VALUES,
        element.index,
    )
