"""Errors on the wire: MolnError to google.rpc.Status, and back to one exception at the client.

A status carries ErrorInfo (reason, domain "moln", metadata) and, where fields are at fault, BadRequest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from services.common.domain.errors import MolnError
from services.common.domain.reasons import ErrorKind, Reason
from services.common.rpc.call import REQUEST_ID_HEADER

DOMAIN = "moln"
DETAILS_HEADER = "grpc-status-details-bin"
# Trailers travel in headers of bounded size (8 KiB is the usual limit of peers): long errors are cut, not lost.
MESSAGE_CHARACTERS = 1024
FIELD_CHARACTERS = 256
MAX_FIELDS = 10

CODES: dict[ErrorKind, grpc.StatusCode] = {kind: grpc.StatusCode[kind.value] for kind in ErrorKind}


class WireError(NamedTuple):
    """The arguments of `context.abort`."""

    code: grpc.StatusCode
    details: str
    trailers: tuple[tuple[str, str | bytes], ...]


def encode_error(err: MolnError, request_id: str) -> WireError:
    """What a client gets for `err`."""
    code = CODES[err.kind]
    message = _cut(err.message, MESSAGE_CHARACTERS)
    status = status_pb2.Status(code=code.value[0], message=message)
    metadata = {name: _cut(value, FIELD_CHARACTERS) for name, value in err.metadata.items()}
    metadata["request_id"] = request_id
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=str(err.reason), domain=DOMAIN, metadata=metadata))
    if err.fields:
        status.details.add().Pack(_bad_request(err.fields))
    return WireError(code, message, ((DETAILS_HEADER, status.SerializeToString()), (REQUEST_ID_HEADER, request_id)))


def defect(request_id: str) -> MolnError:
    """What a client gets for an exception that nobody foresaw: the way to the log, and nothing of its text."""
    text = f"the server failed by a defect of its own; its log has the details under request id {request_id}"
    return MolnError(Reason.INTERNAL, text)


def forwarded(err: grpc.aio.AioRpcError, request_id: str) -> WireError:
    """What a client gets for the error of another service that was asked on its behalf: the same error."""
    trailers: tuple[tuple[str, str | bytes], ...] = ((REQUEST_ID_HEADER, request_id),)
    details = _status_bytes(err)
    if details is not None:
        return WireError(err.code(), err.details() or "", ((DETAILS_HEADER, details), *trailers))
    if err.code() == grpc.StatusCode.UNAVAILABLE:
        text = "a service that owns what was asked for does not answer; try again in a moment"
        return encode_error(MolnError(Reason.SERVICE_UNAVAILABLE, text), request_id)
    return WireError(err.code(), err.details() or "", trailers)


@dataclass(frozen=True)
class RemoteError(Exception):
    """An error as the client sees it. `reason` is "" where the error is gRPC's own (no connection, deadline)."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    fields: tuple[tuple[str, str], ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.message

    @property
    def request_id(self) -> str:
        """What finds the call in the server's log; "" where the call never reached it."""
        return self.metadata.get("request_id", "")


def decode_error(err: grpc.RpcError) -> RemoteError:
    """Reads what the server sent with its refusal; works for errors of other servers and of gRPC itself too."""
    code = err.code() if isinstance(err, (grpc.aio.AioRpcError, grpc.Call)) else grpc.StatusCode.UNKNOWN
    text = (err.details() if isinstance(err, (grpc.aio.AioRpcError, grpc.Call)) else "") or str(code.value[1])
    raw = _status_bytes(err)
    if raw is None:
        return RemoteError(code, text)
    return decode_status(status_pb2.Status.FromString(raw))


def decode_status(status: status_pb2.Status) -> RemoteError:
    """The same for a status that stands in a message, as one result of a batch does."""
    info = error_details_pb2.ErrorInfo()
    request = error_details_pb2.BadRequest()
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(request.DESCRIPTOR):
            detail.Unpack(request)
    fields = tuple((violation.field, violation.description) for violation in request.field_violations)
    return RemoteError(_code(status.code), status.message, info.reason, fields, dict(info.metadata))


def encode_status(err: MolnError, request_id: str) -> status_pb2.Status:
    """A status to stand in a message."""
    status = status_pb2.Status()
    raw = encode_error(err, request_id).trailers[0][1]
    status.ParseFromString(raw if isinstance(raw, bytes) else raw.encode())
    return status


_BY_NUMBER: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def _code(number: int) -> grpc.StatusCode:
    return _BY_NUMBER.get(number, grpc.StatusCode.UNKNOWN)


def _bad_request(fields: Sequence[tuple[str, str]]) -> error_details_pb2.BadRequest:
    request = error_details_pb2.BadRequest()
    for name, problem in fields[:MAX_FIELDS]:
        request.field_violations.add(field=_cut(name, FIELD_CHARACTERS), description=_cut(problem, FIELD_CHARACTERS))
    return request


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _status_bytes(err: grpc.RpcError) -> bytes | None:
    """The raw google.rpc.Status that came with an error, if one did and it can be read."""
    if not isinstance(err, (grpc.aio.AioRpcError, grpc.Call)):
        return None
    for name, value in err.trailing_metadata() or ():
        if name == DETAILS_HEADER and isinstance(value, bytes):
            try:
                status_pb2.Status.FromString(value)
            except DecodeError:
                return None
            return value
    return None
