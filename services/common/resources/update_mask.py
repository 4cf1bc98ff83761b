"""Update masks: which fields of a message a request changes. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from services.common.domain.errors import invalid
from services.common.domain.reasons import Reason

M = TypeVar("M", bound=Message)


def apply_mask(target: M, source: M, mask: FieldMask, allowed: Collection[str], *, field: str = "update_mask") -> M:
    """A copy of `target` with the masked fields taken from `source`: a field that is empty there becomes empty.

    `allowed` are the paths that may be changed; a mask path within one (`template.labels` under `template`) may be too.
    `*` stands for all of them. Raises INVALID: FIELD_REQUIRED for an empty mask, FIELD_INVALID for a path that the
    message does not have, FIELD_IMMUTABLE for one that is not allowed.
    """
    paths = _paths(target, mask, allowed, field)
    result = type(target)()
    result.CopyFrom(target)
    for path in paths:
        _copy(result, source, path.split("."))
    return result


def _paths(target: Message, mask: FieldMask, allowed: Collection[str], field: str) -> list[str]:
    if not mask.paths:
        raise invalid(field, f"names no field; it may name {_listed(allowed)}", reason=Reason.FIELD_REQUIRED)
    if list(mask.paths) == ["*"]:
        return sorted(allowed)
    for path in mask.paths:
        _check(target, path, allowed, field)
    return list(mask.paths)


def _check(target: Message, path: str, allowed: Collection[str], field: str) -> None:
    if not _exists(target, path.split(".")):
        raise invalid(field, f"there is no field '{path}'; it may name {_listed(allowed)}")
    if any(path == root or path.startswith(f"{root}.") for root in allowed):
        return
    problem = f"'{path}' cannot be changed; what can: {_listed(allowed)}"
    raise invalid(field, problem, reason=Reason.FIELD_IMMUTABLE)


def _exists(message: Message, names: list[str]) -> bool:
    found = message.DESCRIPTOR.fields_by_name.get(names[0])
    if found is None or len(names) == 1:
        return found is not None
    if found.message_type is None or found.is_repeated:
        return False
    return _exists(getattr(message, names[0]), names[1:])


def _copy(target: Message, source: Message, names: list[str]) -> None:
    *parents, name = names
    for parent in parents:
        target = getattr(target, parent)
        source = getattr(source, parent)
    part = type(target)()
    part.CopyFrom(source)
    for other in part.DESCRIPTOR.fields:
        if other.name != name:
            part.ClearField(other.name)
    target.ClearField(name)
    target.MergeFrom(part)


def _listed(allowed: Collection[str]) -> str:
    return ", ".join(sorted(allowed))
