"""Messages as plain documents, for JSON and YAML. Pure; the way back from YAML is `templates`.

Fields that are not set are left out; enums are their names without the common beginning; 64-bit numbers are numbers.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

Plain = Any
Bytes = Callable[[bytes], Plain]


def as_base64(value: bytes) -> str:
    """Bytes for JSON."""
    return base64.b64encode(value).decode()


def as_text(value: bytes) -> str | bytes:
    """Bytes for YAML: text where it is text, else `!!binary`."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def plain(message: Message, of_bytes: Bytes = as_base64) -> Plain:
    """The message as dicts, lists, strings and numbers."""
    if isinstance(message, Timestamp | Duration):
        return message.ToJsonString()
    return {field.name: _field(field, value, of_bytes) for field, value in message.ListFields()}


def json_text(document: Plain, *, indent: int | None = 2) -> str:
    """JSON, on one line where `indent` is None."""
    return json.dumps(document, indent=indent, ensure_ascii=False)


def yaml_text(document: Plain) -> str:
    """YAML, in the order of the document; texts of several lines stay readable."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Several lines as a block."""

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=_style(value))

    Dumper.add_representer(str, text)
    return yaml.dump(document, Dumper=Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False)


def _style(text: str) -> str | None:
    """A block for plain lines; quotes with escapes for whatever a reader could take for something else."""
    lines = text.split("\n")
    if len(lines) > 1 and all(line.isprintable() and line == line.rstrip() for line in lines) and text[0] not in " \n":
        return "|"
    return None if text.isprintable() else '"'


def enum_prefix(enum: EnumDescriptor) -> str:
    """The common beginning of an enum's names: `VM_STATE_` of VmState."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", enum.name).upper() + "_"


def enum_word(enum: EnumDescriptor, number: int) -> str:
    """The name of a value without the common beginning: `RUNNING`; the number where it has none (a newer cloud)."""
    value = enum.values_by_number.get(number)
    return value.name.removeprefix(enum_prefix(enum)) if value else str(number)


def _field(field: FieldDescriptor, value: Any, of_bytes: Bytes) -> Plain:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        entry = field.message_type.fields_by_name["value"]
        return {key: _single(entry, value[key], of_bytes) for key in sorted(value)}
    if field.is_repeated:
        return [_single(field, item, of_bytes) for item in value]
    return _single(field, value, of_bytes)


def _single(field: FieldDescriptor, value: Any, of_bytes: Bytes) -> Plain:
    if field.message_type is not None:
        return plain(value, of_bytes)
    if field.enum_type is not None:
        return enum_word(field.enum_type, value)
    return of_bytes(value) if isinstance(value, bytes) else value
