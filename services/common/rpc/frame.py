"""The frame around every RPC method: request id, gate, metrics, access log, error mapping. One layer for all of it.

Each method is wrapped once, when it is registered, so that a call costs one extra coroutine and no look-ups. The broad
excepts here are the server's counterpart of the loop runner's: what nobody foresaw is logged once and becomes INTERNAL.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc

from services.common.domain.errors import MolnError
from services.common.obs.logs import REQUEST_ID, get_logger
from services.common.rpc.call import Call, Context, Gate, set_current_call
from services.common.rpc.errors import WireError, defect, encode_error, forwarded
from services.common.rpc.metrics import MethodMetrics, RpcMetrics
from services.common.rpc.store_errors import from_store_error
from services.common.store.errors import StoreError

SLOW_SECONDS = 1.0
HEAR_OUT_SECONDS = 1.0
"""So long a client that is refused may go on sending."""
REVISION_HEADER = "moln-revision"
"""Trailer of every reply: the store's revision that it reflects."""

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behaviour = Callable[[Any, Context], Any]


class Frame:
    """Wraps the handlers of one server."""

    def __init__(self, metrics: RpcMetrics, gate: Gate | None, revision: Callable[[], int] | None = None) -> None:
        self._metrics = metrics
        self._gate = gate
        self._revision = revision
        self._log = get_logger("rpc")
        self._logs_all = bool(self._log.is_enabled_for(logging.DEBUG))

    def wrap(self, method: str, handler: Handler) -> Handler:
        """The same method, framed. `method` is the full path, "/moln.compute.v1.VmService/GetVm"."""
        metrics = self._metrics.of(method.removeprefix("/"))
        coders = (handler.request_deserializer, handler.response_serializer)
        behaviour: Any = handler.unary_unary or handler.stream_unary or handler.unary_stream or handler.stream_stream
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(self._unary(method, behaviour, metrics), *coders)
        if handler.stream_unary is not None:
            return grpc.stream_unary_rpc_method_handler(self._unary(method, behaviour, metrics, is_fed=True), *coders)
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(self._stream(method, behaviour, metrics), *coders)
        return grpc.stream_stream_rpc_method_handler(self._stream(method, behaviour, metrics), *coders)

    def _unary(self, method: str, behaviour: Behaviour, metrics: MethodMetrics, *, is_fed: bool = False) -> Behaviour:
        """Methods that answer once; `request` is a message or, where it `is_fed`, the client's stream of them."""

        async def framed(request: Any, context: Context) -> Any:
            call = Call(method, context)
            try:
                await self._enter(call)
                response = await behaviour(request, context)
            except BaseException as err:
                if is_fed and isinstance(err, Exception):
                    await _hear_out(request)
                await self._failed(call, metrics, err)
                raise
            metrics.seconds.observe(time.perf_counter() - call.started)
            self._ended(call, metrics)
            return response

        return framed

    def _stream(self, method: str, behaviour: Behaviour, metrics: MethodMetrics) -> Behaviour:
        """Methods that answer with a stream: an async generator, or a coroutine that writes to its context."""

        async def framed(request: Any, context: Context) -> None:
            call = Call(method, context)
            metrics.open_streams.inc()
            try:
                await self._enter(call)
                await _drain(behaviour(request, context), context)
            except BaseException as err:
                await self._failed(call, metrics, err)
                raise
            finally:
                metrics.open_streams.dec()
            self._ended(call, metrics)

        return framed

    async def _enter(self, call: Call) -> None:
        set_current_call(call)
        REQUEST_ID.set(call.request_id)
        if self._gate is not None:
            waiting = self._gate(call)
            if waiting is not None:
                await waiting

    def _ended(self, call: Call, metrics: MethodMetrics) -> None:
        if self._revision is not None and not any(name == REVISION_HEADER for name, _ in call.trailers):
            call.add_trailer(REVISION_HEADER, str(self._revision()))
        if call.trailers:
            call.context.set_trailing_metadata(tuple(call.trailers))
        metrics.ended("OK")
        if self._logs_all or time.perf_counter() - call.started > SLOW_SECONDS:
            self._access(call, "OK")

    async def _failed(self, call: Call, metrics: MethodMetrics, err: BaseException) -> None:
        """Counts and logs a call that raised; ends it with the status that the exception maps to (which raises)."""
        err = _first_of(err)
        if isinstance(err, (asyncio.CancelledError, grpc.aio.AbortError)) or not isinstance(err, Exception):
            code = _code_of(call.context) if isinstance(err, grpc.aio.AbortError) else "CANCELLED"
            metrics.ended(code)
            self._access(call, code)
            return
        wire = self._wire_error(call, err)
        metrics.ended(wire.code.name)
        self._access(call, wire.code.name, error=wire.details)
        await call.context.abort(wire.code, wire.details, (*wire.trailers, *call.trailers))

    def _wire_error(self, call: Call, err: Exception) -> WireError:
        if isinstance(err, StoreError):
            err = from_store_error(err)
        if isinstance(err, MolnError):
            return encode_error(err, call.request_id)
        if isinstance(err, grpc.aio.AioRpcError):
            return forwarded(err, call.request_id)
        self._log.error("call failed by a defect", method=call.method, error=repr(err), exc_info=err)
        return encode_error(defect(call.request_id), call.request_id)

    def _access(self, call: Call, code: str, **more: str) -> None:
        """One line per call that failed or was slow; per call at all where the level is debug."""
        seconds = round(time.perf_counter() - call.started, 4)
        log = self._log.debug if code in {"OK", "CANCELLED"} and seconds <= SLOW_SECONDS else self._log.info
        log("call ended", method=call.method, code=code, seconds=seconds, peer=call.context.peer(), **more)


async def _drain(answers: AsyncIterator[Any] | Awaitable[None], context: Context) -> None:
    if isinstance(answers, Awaitable):
        await answers
        return
    try:
        async for answer in answers:
            await context.write(answer)
    finally:
        if isinstance(answers, AsyncGenerator):
            await answers.aclose()


async def _hear_out(messages: AsyncIterator[Any]) -> None:
    """Takes what the client still sends, for a moment: one whose data is not taken may not hear why it is refused."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(HEAR_OUT_SECONDS):
            async for _ in messages:
                pass


def _first_of(err: BaseException) -> BaseException:
    """The exception itself, or the first one of a group: what a method's tasks raise is its own answer."""
    return _first_of(err.exceptions[0]) if isinstance(err, BaseExceptionGroup) else err


def _code_of(context: Context) -> str:
    code: object = context.code()
    return code.name if isinstance(code, grpc.StatusCode) else _NAMES.get(code, "UNKNOWN")


_NAMES: dict[object, str] = {code.value[0]: code.name for code in grpc.StatusCode}
