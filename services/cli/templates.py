"""YAML as a message: the contract's own names, each mistake named with its line and the nearest known name. Pure.

Sizes may have units (`memory_mib: 4G`), enums are words (`restart_policy: NEVER`), bytes are text or `!!binary`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import yaml
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from services.cli.command_line import nearest
from services.cli.documents import enum_prefix
from services.cli.exits import CliError, usage
from services.cli.sizes import parse_mib

M = TypeVar("M", bound=Message)
_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def read_yaml(text: str, message: type[M], name: str) -> M:
    """The message that a YAML (or JSON) text says. `name` is the file's, for errors. Raises CliError with the line."""
    result = message()
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as err:
        mark = err.problem_mark
        raise usage(f"{name}{_place(mark)}: not YAML: {err.problem or 'cannot be read'}") from err
    except yaml.YAMLError as err:
        raise usage(f"{name}: not YAML: {err}") from err
    if node is not None:
        _Reader(name).fill(result, node)
    return result


def read_pairs(text: str, message: type[M], name: str, *, bare: str, aliases: Mapping[str, str]) -> M:
    """The message that an option such as `image=debian,size=10G` says; a word without `=` is the field `bare`."""
    result = message()
    known = [*aliases, *(field.name for field in result.DESCRIPTOR.fields)]
    pairs = []
    for word in text.split(","):
        key, sign, value = word.partition("=")
        key, value = (key, value) if sign else (bare, key)
        if key not in known:
            raise usage(
                f"{name} '{text}': unknown key '{key}'" + (nearest(key, known) or f" (known: {', '.join(known)})")
            )
        tag = "tag:yaml.org,2002:str"
        pairs.append((yaml.ScalarNode(tag, aliases.get(key, key)), yaml.ScalarNode(tag, value)))
    _Reader(f"{name} '{text}'").fill(result, yaml.MappingNode("tag:yaml.org,2002:map", pairs))
    return result


class _Reader:
    """Walks the nodes of one file beside the descriptors of the message."""

    def __init__(self, name: str) -> None:
        self._name = name

    def fill(self, message: Message, node: yaml.Node) -> None:
        """Sets the fields that a mapping names."""
        descriptor: Any = message.DESCRIPTOR
        seen: set[str] = set()
        for key_node, value_node in self._pairs(node, descriptor):
            key = str(key_node.value)
            if key not in descriptor.fields_by_name:
                raise self._error(key_node, _unknown_key(key, descriptor))
            if key in seen:
                raise self._error(key_node, f"'{key}' is here twice")
            seen.add(key)
            if not _is_null(value_node):
                self._set(message, descriptor.fields_by_name[key], value_node)

    def _set(self, message: Message, field: FieldDescriptor, node: yaml.Node) -> None:
        kind = field.message_type
        target: Any = getattr(message, field.name)
        if kind is not None and kind.GetOptions().map_entry:
            self._fill_map(target, kind, node)
        elif field.is_repeated:
            for item in self._items(field, node):
                if kind is not None:
                    self.fill(target.add(), item)
                else:
                    target.append(self._scalar(field, item))
        elif kind is not None:
            target.SetInParent()
            self.fill(target, node)
        else:
            setattr(message, field.name, self._scalar(field, node))

    def _fill_map(self, target: Any, kind: Descriptor, node: yaml.Node) -> None:
        value = kind.fields_by_name["value"]
        for key_node, value_node in self._pairs(node, kind):
            if value.message_type is not None:
                self.fill(target[str(key_node.value)], value_node)
            else:
                target[str(key_node.value)] = self._scalar(value, value_node)

    def _scalar(self, field: FieldDescriptor, node: yaml.Node) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            raise self._error(node, f"'{field.name}' takes a single value")
        if field.enum_type is not None:
            return self._enum(field.enum_type, field.name, node)
        if field.cpp_type in _INTEGERS:
            return self._integer(field, node)
        if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
            return self._boolean(field.name, node)
        if field.type == FieldDescriptor.TYPE_BYTES:
            return self._bytes(node)
        if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            return str(node.value)
        return self._number(field.name, node)

    def _integer(self, field: FieldDescriptor, node: yaml.ScalarNode) -> int:
        text = str(node.value).strip()
        try:
            value = parse_mib(text) if field.name.endswith("_mib") else int(text, 0)
        except ValueError as err:
            why = str(err) if field.name.endswith("_mib") else f"'{text}' is no whole number"
            raise self._error(node, f"'{field.name}': {why}") from err
        low, high = _INTEGERS[field.cpp_type]
        if not low <= value <= high:
            raise self._error(node, f"'{field.name}': {text} is not between {low} and {high}")
        return value

    def _number(self, name: str, node: yaml.ScalarNode) -> float:
        try:
            return float(node.value)
        except ValueError as err:
            raise self._error(node, f"'{name}': '{node.value}' is no number") from err

    def _boolean(self, name: str, node: yaml.ScalarNode) -> bool:
        words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
        value = words.get(str(node.value).lower())
        if value is None:
            raise self._error(node, f"'{name}' takes true or false")
        return value

    def _enum(self, enum: EnumDescriptor, name: str, node: yaml.ScalarNode) -> int:
        prefix = enum_prefix(enum)
        words = {value.name.removeprefix(prefix): value.number for value in enum.values if value.number}
        word = str(node.value).upper().replace("-", "_").removeprefix(prefix)
        if word not in words:
            raise self._error(
                node, f"'{name}': '{node.value}' is none of {', '.join(words)}{nearest(word, list(words))}"
            )
        return words[word]

    def _bytes(self, node: yaml.ScalarNode) -> bytes:
        if node.tag == "tag:yaml.org,2002:binary":
            value = yaml.SafeLoader("").construct_yaml_binary(node)
            return bytes(value)
        return str(node.value).encode()

    def _pairs(self, node: yaml.Node, descriptor: Descriptor) -> list[tuple[yaml.Node, yaml.Node]]:
        if not isinstance(node, yaml.MappingNode):
            known = "" if descriptor.GetOptions().map_entry else f" (such as {', '.join(_names(descriptor)[:3])})"
            raise self._error(node, f"expected `key: value` lines{known}")
        return list(node.value)

    def _items(self, field: FieldDescriptor, node: yaml.Node) -> list[yaml.Node]:
        if not isinstance(node, yaml.SequenceNode):
            raise self._error(node, f"'{field.name}' takes a list: put `- ` before each item")
        return list(node.value)

    def _error(self, node: yaml.Node, problem: str) -> CliError:
        return usage(f"{self._name}{_place(node.start_mark)}: {problem}")


def _unknown_key(key: str, descriptor: Descriptor) -> str:
    names = _names(descriptor)
    return f"unknown key '{key}'" + (nearest(key, names) or f" (known keys: {', '.join(names)})")


def _names(descriptor: Descriptor) -> list[str]:
    return [field.name for field in descriptor.fields]


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _place(mark: yaml.Mark | None) -> str:
    return f", line {mark.line + 1}" if mark else ""
