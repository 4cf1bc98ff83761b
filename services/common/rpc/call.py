"""The call being served: what interceptors learn about it and servicers may ask for. No transport decisions here."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Any

import grpc

REQUEST_ID_HEADER = "moln-request-id"
_REQUEST_ID_LENGTH = 64

Context = grpc.aio.ServicerContext[Any, Any]

_prefix = os.urandom(4).hex()
_numbers = itertools.count(1)


class Call:
    """One call in progress. `caller` is what the gate found out about who calls; None where nobody asked."""

    __slots__ = ("caller", "context", "metadata", "method", "request_id", "started", "trailers")

    def __init__(self, method: str, context: Context) -> None:
        self.method = method
        self.context = context
        self.metadata: Sequence[tuple[str, str | bytes]] = context.invocation_metadata() or ()  # type: ignore[assignment]
        self.request_id = _request_id(self.header(REQUEST_ID_HEADER))
        self.started = time.perf_counter()
        self.caller: object = None
        self.trailers: list[tuple[str, str]] = []

    def header(self, name: str) -> str:
        """The value of a metadata key that the client sent, or "" where it sent none."""
        for key, value in self.metadata:
            if key == name and isinstance(value, str):
                return value
        return ""

    def add_trailer(self, name: str, value: str) -> None:
        """Sends `name: value` with the end of the reply, for example `moln-revision`."""
        self.trailers.append((name, value))


Gate = Callable[[Call], Awaitable[None] | None]
"""Decides before the servicer runs whether a call may pass: raises MolnError where not, and may set `call.caller`."""

_current: ContextVar[Call | None] = ContextVar("moln_call", default=None)


def current_call() -> Call:
    """The call that the present task serves; RuntimeError outside of calls, which is a defect of the caller."""
    call = _current.get()
    if call is None:
        raise RuntimeError("no call is being served by this task")
    return call


def set_current_call(call: Call) -> None:
    """For the server's frame only. gRPC runs each call in a task of its own, so nothing needs to be set back."""
    _current.set(call)


def new_request_id() -> str:
    """An id that is unique among processes and calls; short, for people who search a log for it."""
    return f"{_prefix}-{next(_numbers):x}"


def _request_id(sent: str) -> str:
    """The client's own id where it is fit for a log line, otherwise a new one."""
    if sent and len(sent) <= _REQUEST_ID_LENGTH and sent.isascii() and sent.isprintable():
        return sent
    return new_request_id()
