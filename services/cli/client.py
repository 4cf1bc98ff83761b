"""The connection to a cloud: credentials, deadlines, retries that are safe, and the revision that answers reflect.

Blocking, since a command does one thing. It knows no service and no resource.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.message import Message

from services.cli.clouds import Cloud
from services.cli.revisions import LastRevision
from services.cli.rpc_errors import Failure, decode, to_cli_error

M = TypeVar("M", bound=Message)

UNARY_SECONDS = 30.0
RETRIES = 5
FIRST_PAUSE_SECONDS = 0.1
MAX_MESSAGE_BYTES = 256 * 2**20
_PASSING = frozenset({"NOT_LEADER", "SERVICE_UNAVAILABLE", "SERVICE_STOPPING", "STORE_STALE", "CONFLICT"})

Metadata = tuple[tuple[str, str], ...]


class Answers(Generic[M]):
    """The answers of a stream. Ends quietly when it is cancelled here; raises CliError when it fails."""

    def __init__(self, call: Any, endpoint: str) -> None:
        self._call = call
        self._endpoint = endpoint
        self._is_cancelled = False

    def __iter__(self) -> Iterator[M]:
        try:
            yield from self._call
        except grpc.RpcError as err:
            if not self._is_cancelled:
                raise to_cli_error(decode(err), self._endpoint) from err
        finally:
            self._call.cancel()

    def cancel(self) -> None:
        """Ends the call, from any thread."""
        self._is_cancelled = True
        self._call.cancel()


class Client:
    """A connection. Every call raises CliError, worded for the user, when it fails."""

    def __init__(self, cloud: Cloud, revision: LastRevision, *, patience: int = RETRIES) -> None:
        self.cloud = cloud
        self._revision = revision
        self._patience = patience
        self._channel = _dial(cloud)

    def unary(
        self,
        path: str,
        request: Message,
        reply: type[M],
        *,
        seconds: float = UNARY_SECONDS,
        is_repeatable: bool = True,
    ) -> M:
        """Calls and returns the answer. Creations carry a request id and so may be repeated; what must not says so."""
        call = self._channel.unary_unary(path, request_serializer=_to_bytes, response_deserializer=reply.FromString)
        pause = FIRST_PAUSE_SECONDS
        patience = self._patience if is_repeatable else 0
        for attempt in range(patience + 1):
            try:
                answer, state = call.with_call(request, timeout=seconds, metadata=self._metadata())
            except grpc.RpcError as err:
                failure = decode(err)
                if attempt == patience or not self._passes_by_itself(failure, attempt):
                    raise to_cli_error(failure, self.cloud.endpoint) from err
                time.sleep(pause)
                pause *= 2
            else:
                self._note(state)
                return answer
        raise AssertionError("the last attempt returns or raises")

    def stream(self, path: str, request: Message, reply: type[M], *, seconds: float | None = None) -> Answers[M]:
        """The answers of a server's stream, until it ends it."""
        call = self._channel.unary_stream(path, request_serializer=_to_bytes, response_deserializer=reply.FromString)
        return Answers(call(request, timeout=seconds, metadata=self._metadata()), self.cloud.endpoint)

    def duplex(self, path: str, requests: Iterable[Message], reply: type[M]) -> Answers[M]:
        """Sends and receives at the same time."""
        call = self._channel.stream_stream(path, request_serializer=_to_bytes, response_deserializer=reply.FromString)
        return Answers(call(iter(requests), metadata=self._metadata()), self.cloud.endpoint)

    def upload(self, path: str, requests: Iterable[Message], reply: type[M]) -> M:
        """Sends a stream and returns the one answer."""
        call = self._channel.stream_unary(path, request_serializer=_to_bytes, response_deserializer=reply.FromString)
        try:
            answer, state = call.with_call(iter(requests), metadata=self._metadata())
        except grpc.RpcError as err:
            raise to_cli_error(decode(err), self.cloud.endpoint) from err
        self._note(state)
        return answer

    def saw(self, revision: int) -> None:
        """Notes a revision that was learnt from an answer's fields."""
        self._revision.saw(revision)

    def close(self) -> None:
        """Ends the connection and keeps the revision."""
        self._revision.save()
        self._channel.close()

    def _passes_by_itself(self, failure: Failure, attempt: int) -> bool:
        """Whether the same request may well succeed in a moment."""
        if failure.reason in _PASSING:
            return True
        is_dead = failure.code is grpc.StatusCode.UNAVAILABLE and not failure.reason
        return is_dead and (attempt < 1 or self.cloud.is_supervised)

    def _metadata(self) -> Metadata:
        credentials = ("authorization", f"Bearer {self.cloud.token}")
        if not self._revision.value:
            return (credentials,)
        return (credentials, ("moln-min-revision", str(self._revision.value)))

    def _note(self, call: grpc.Call) -> None:
        for key, value in (*(call.initial_metadata() or ()), *(call.trailing_metadata() or ())):
            if key == "moln-revision":
                self._revision.saw(int(value))


def _dial(cloud: Cloud) -> grpc.Channel:
    options = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.enable_http_proxy", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
    ]
    parts = cloud.endpoint.split(",")
    target = cloud.endpoint if len(parts) == 1 else "ipv4:" + ",".join(parts)
    if cloud.ca is None:
        return grpc.insecure_channel(target, options=options)
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(cloud.ca or None), options=options)


def _to_bytes(message: Message) -> bytes:
    return message.SerializeToString()
