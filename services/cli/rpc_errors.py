"""Turns errors of gRPC into one clear line and an exit code. Decides nothing else; retries nothing.

It decodes by itself what services.common.rpc decodes too: importing that costs a command 0.2 s.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from services.cli.exits import CliError, Exit

DETAILS = "grpc-status-details-bin"
_CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: Exit.USAGE,
    grpc.StatusCode.OUT_OF_RANGE: Exit.FAILED,
    grpc.StatusCode.NOT_FOUND: Exit.NOT_FOUND,
    grpc.StatusCode.DEADLINE_EXCEEDED: Exit.NOT_REACHED,
    grpc.StatusCode.UNAVAILABLE: Exit.UNREACHABLE,
    grpc.StatusCode.ALREADY_EXISTS: Exit.REFUSED,
    grpc.StatusCode.FAILED_PRECONDITION: Exit.REFUSED,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Exit.REFUSED,
    grpc.StatusCode.PERMISSION_DENIED: Exit.REFUSED,
    grpc.StatusCode.UNAUTHENTICATED: Exit.REFUSED,
    grpc.StatusCode.ABORTED: Exit.REFUSED,
    grpc.StatusCode.UNIMPLEMENTED: Exit.REFUSED,
}
_REASONS = {"STATE_UNREACHABLE": Exit.FAILED}
_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}


@dataclass(frozen=True)
class Failure:
    """What an answer says of its failure."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    fields: tuple[tuple[str, str], ...] = ()
    """(path, what is wrong with it) pairs."""


def decode(error: grpc.RpcError) -> Failure:
    """What the server said, from the status details where they are there."""
    call: Any = error  # what is raised is the call itself, which the types do not say
    code: grpc.StatusCode = call.code()
    words = call.details() or code.name
    for key, value in call.trailing_metadata() or ():
        if key == DETAILS and isinstance(value, bytes):
            return _from_status(code, words, value)
    return Failure(code, words)


def _from_status(code: grpc.StatusCode, words: str, value: bytes) -> Failure:
    status = status_pb2.Status.FromString(value)
    info, request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            detail.Unpack(request)
    fields = tuple((violation.field, violation.description) for violation in request.field_violations)
    return Failure(code, status.message or words, info.reason, dict(info.metadata), fields)


def exit_code(code: grpc.StatusCode, reason: str = "") -> Exit:
    """The exit code for a status and a reason of the closed list."""
    return _REASONS.get(reason) or _CODES.get(code, Exit.FAILED)


def exit_code_of_number(code: int, reason: str = "") -> Exit:
    """The same for a status code as a number, as results of batches carry it."""
    return exit_code(_BY_NUMBER.get(code, grpc.StatusCode.UNKNOWN), reason)


def to_cli_error(failure: Failure, endpoint: str) -> CliError:
    """The line for the user. A cloud that does not answer at all is named with the remedy."""
    if failure.code is grpc.StatusCode.UNAVAILABLE and not failure.reason:
        return CliError(
            f"the cloud at {endpoint} does not answer ({_short(failure.message)}): "
            "is it running? `moln dev status` shows the stacks of this machine",
            Exit.UNREACHABLE,
        )
    if failure.code is grpc.StatusCode.DEADLINE_EXCEEDED and not failure.reason:
        words = f"the cloud at {endpoint} did not answer in time; try again"
        return CliError(words, Exit.UNREACHABLE, reason=failure.code.name)
    if failure.code is grpc.StatusCode.UNIMPLEMENTED and not failure.reason:
        return CliError(f"the cloud at {endpoint} does not know this command yet: it is an older or partial release")
    message = "\n".join([failure.message, *_further_fields(failure)])
    return CliError(message, exit_code(failure.code, failure.reason), reason=failure.reason)


def _further_fields(failure: Failure) -> list[str]:
    """Lines for the fields of which the message does not speak itself."""
    said = failure.message
    return [f"  {path}: {problem}" for path, problem in failure.fields if path not in said and problem not in said]


def _short(words: str) -> str:
    """The heart of gRPC's own wordy messages."""
    for known in ("Connection refused", "No such file or directory", "DNS resolution failed", "Timeout"):
        if known.lower() in words.lower():
            return known.lower()
    return words.splitlines()[0][:120] if words else "no reason given"
