"""What a host's script may be asked for, and the records of it. Pure."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping

from google.protobuf.timestamp_pb2 import Timestamp

from moln.common.v1 import common_pb2
from moln.compute.v1 import host_pb2
from services.common.domain.errors import invalid

K = host_pb2.HostOperationKind
S = host_pb2.HostOperationState

METHODS: Mapping[int, str] = {
    K.HOST_OPERATION_KIND_FENCE: "fence",
    K.HOST_OPERATION_KIND_POWER_OFF: "power_off",
    K.HOST_OPERATION_KIND_POWER_ON: "power_on",
}
"""What a script is asked for, by the kind of the operation: docs/driver-protocol.md."""

MAX_PARAMETERS = 32
MAX_VALUE = 1024
FIRST_PAUSE_S = 5
LONGEST_PAUSE_S = 60
MAX_MESSAGE = 2048
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_RESERVED = frozenset({"host", "host_id"})


def check_parameters(parameters: Mapping[str, str], path: str) -> None:
    """Raises INVALID for parameters of scripts that are not allowed."""
    if len(parameters) > MAX_PARAMETERS:
        raise invalid(path, f"has {len(parameters)} parameters; at most {MAX_PARAMETERS} are allowed")
    for name, value in parameters.items():
        if not _NAME.fullmatch(name) or name in _RESERVED:
            problem = "lower-case letters, digits and _, and neither host nor host_id, which moln adds"
            raise invalid(path, f"'{name}' is no name of a parameter: {problem}")
        if len(value) > MAX_VALUE or not value.isprintable():
            raise invalid(path, f"the value of {name} must be printable and of at most {MAX_VALUE} characters")


def command_of(spec: host_pb2.HostSpec, kind: int) -> str:
    """The script that does it; empty: there is none."""
    return spec.fence_command if kind == K.HOST_OPERATION_KIND_FENCE else spec.power_command


def parameters_of(host_id: int, spec: host_pb2.HostSpec) -> dict[str, str | int]:
    """What a script is told."""
    return {**spec.script_parameters, "host": spec.name, "host_id": host_id}


def is_active(operation: host_pb2.HostOperation | None) -> bool:
    """It has not ended."""
    return operation is not None and operation.state in (
        S.HOST_OPERATION_STATE_REQUESTED, S.HOST_OPERATION_STATE_RUNNING
    )  # fmt: skip


def may_fence_again(operation: host_pb2.HostOperation | None, now_s: float) -> bool:
    """Whether the api may ask for a fence of its own accord: nothing is under way, and a failure has had its pause."""
    if operation is None:
        return True
    return not is_active(operation) and (not operation.is_automatic or operation.not_before.seconds <= now_s)


def new_operation(
    uid: str, kind: host_pb2.HostOperationKind, cause: common_pb2.Cause, former: host_pb2.HostOperation | None = None
) -> host_pb2.HostOperation:
    """A request. One that is automatic has `former`, the operation that it follows, and counts its tries."""
    operation = host_pb2.HostOperation(
        uid=uid, id=str(uuid.uuid4()), kind=kind, state=S.HOST_OPERATION_STATE_REQUESTED, attempt=1,
        request_time=cause.time, cause=cause,
    )  # fmt: skip
    if former is not None and former.is_automatic and former.state == S.HOST_OPERATION_STATE_FAILED:
        operation.attempt = former.attempt + 1
    return operation


def begun(operation: host_pb2.HostOperation) -> host_pb2.HostOperation:
    """The same, running."""
    running = host_pb2.HostOperation()
    running.CopyFrom(operation)
    running.state = S.HOST_OPERATION_STATE_RUNNING
    return running


def ended(operation: host_pb2.HostOperation, now: Timestamp, *, is_done: bool, message: str) -> host_pb2.HostOperation:
    """The same, ended. One that is automatic says when the next may come: after 5 s, doubled, at most 60 s."""
    over = host_pb2.HostOperation()
    over.CopyFrom(operation)
    over.state = S.HOST_OPERATION_STATE_DONE if is_done else S.HOST_OPERATION_STATE_FAILED
    over.message = message[:MAX_MESSAGE]
    over.end_time.CopyFrom(now)
    if over.is_automatic:
        pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S << min(over.attempt - 1, 10))
        over.not_before.seconds = now.seconds + pause
    return over
