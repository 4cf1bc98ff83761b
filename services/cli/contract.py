"""The contract with its comments, from the descriptor set that is made with the stubs. Reads one file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

from services.cli.exits import CliError

FILE = "moln.binpb"
_SCALARS = {
    FieldDescriptorProto.TYPE_STRING: "text", FieldDescriptorProto.TYPE_BYTES: "bytes",
    FieldDescriptorProto.TYPE_BOOL: "true or false", FieldDescriptorProto.TYPE_DOUBLE: "number",
}  # fmt: skip


@dataclass(frozen=True)
class Field:
    """One field of a message, as people read it."""

    name: str
    comment: str
    type_text: str
    message: str
    """Full name of the message that it holds, or empty."""
    enum: str
    """Full name of the enum whose words it takes, or empty."""


@dataclass(frozen=True)
class Message:
    """One message."""

    name: str
    comment: str
    fields: tuple[Field, ...]


@dataclass(frozen=True)
class Contract:
    """All messages and enums of the contract by full name."""

    messages: dict[str, Message]
    enums: dict[str, tuple[tuple[str, str], ...]]
    """(word, comment) of each value."""


@cache
def contract() -> Contract:
    """Reads the contract. Raises CliError where the file is missing."""
    path = _find()
    files = FileDescriptorSet.FromString(path.read_bytes())
    own = [file for file in files.file if file.package.startswith("moln.")]
    return Contract(
        {message.name: message for file in own for message in _messages(file)},
        {name: values for file in own for name, values in _enums(file)},
    )


def _find() -> Path:
    import moln

    for folder in [Path(place) for place in moln.__path__]:
        for candidate in (folder / FILE, folder.parent / FILE):
            if candidate.is_file():
                return candidate
    raise CliError(f"the description of the contract ({FILE}) is missing: `make proto` makes it")


def _messages(file: FileDescriptorProto) -> Iterator[Message]:
    comments = _comments(file)
    for index, message in enumerate(file.message_type):
        maps = {f".{file.package}.{message.name}.{nested.name}": nested for nested in message.nested_type}
        fields = tuple(
            _field(field, comments.get((4, index, 2, place), ""), maps) for place, field in enumerate(message.field)
        )
        yield Message(f".{file.package}.{message.name}", comments.get((4, index), ""), fields)


def _field(field: FieldDescriptorProto, comment: str, maps: dict[str, DescriptorProto]) -> Field:
    entry = maps.get(field.type_name)
    if entry is not None:
        value = _field(entry.field[1], "", {})
        return Field(field.name, comment, f"map of {value.type_text}", value.message, value.enum)
    text, message, enum = _SCALARS.get(field.type, "whole number"), "", ""
    if field.type == FieldDescriptorProto.TYPE_MESSAGE:
        message = field.type_name
        text = message.rpartition(".")[2]
        text = {"Timestamp": "time", "Duration": "span of time"}.get(text, text)
    elif field.type == FieldDescriptorProto.TYPE_ENUM:
        text, enum = "word", field.type_name
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        text = f"list of {text}"
    return Field(field.name, comment, text, message, enum)


def _enums(file: FileDescriptorProto) -> Iterator[tuple[str, tuple[tuple[str, str], ...]]]:
    comments = _comments(file)
    for index, enum in enumerate(file.enum_type):
        prefix = _common_prefix(enum)
        values = tuple(
            (value.name.removeprefix(prefix), comments.get((5, index, 2, place), ""))
            for place, value in enumerate(enum.value)
            if value.number
        )
        yield f".{file.package}.{enum.name}", values


def _common_prefix(enum: EnumDescriptorProto) -> str:
    return enum.value[0].name.removesuffix("UNSPECIFIED")


def _comments(file: FileDescriptorProto) -> dict[tuple[int, ...], str]:
    return {tuple(place.path): place.leading_comments.strip() for place in file.source_code_info.location}
