"""A gRPC server with canned answers, for clients of the public API: what it is asked is kept, what it says is given.

It checks nothing and decides nothing; that the real api answers like this is shown by the tests in tests/e2e.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.message import Message

from moln.compute.v1 import cluster_service_pb2, host_service_pb2, template_service_pb2, vm_service_pb2
from moln.iam.v1 import user_service_pb2
from moln.image.v1 import datastore_service_pb2, image_service_pb2
from moln.network.v1 import network_service_pb2
from moln.operations.v1 import monitoring_service_pb2, operations_service_pb2
from moln.scheduler.v1 import scheduler_service_pb2
from services.common.domain.errors import MolnError
from services.common.rpc.errors import encode_error

FILES = (
    vm_service_pb2, host_service_pb2, cluster_service_pb2, template_service_pb2, user_service_pb2, image_service_pb2,
    datastore_service_pb2, network_service_pb2, operations_service_pb2, scheduler_service_pb2, monitoring_service_pb2,
)  # fmt: skip
Answer = Callable[[Any], Any]


@dataclass
class Asked:
    """One call that was received. A stream of requests is kept as a list."""

    method: str
    request: Any
    metadata: dict[str, str]


@dataclass
class CannedApi:
    """Answers by the name of the method (`CreateVm`): a message, a list of them for a stream, or a function of the
    request; a MolnError is sent as the error that it is. `revision` goes out with every answer.
    """

    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    revision: int = 0
    port: int = 0

    def requests(self, method: str) -> list[Any]:
        """What a method was asked."""
        return [call.request for call in self.asked if call.method == method]

    def reply(self, method: str, request: Any, context: grpc.ServicerContext) -> Any:
        """The answer to a call; gRPC's own UNIMPLEMENTED where there is none."""
        metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        self.asked.append(Asked(method, request, metadata))
        if self.revision:
            context.set_trailing_metadata((("moln-revision", str(self.revision)),))
        if method not in self.answers:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "")
        answer = self.answers[method]
        found = answer(request) if callable(answer) else answer
        if isinstance(found, MolnError):
            code, words, trailers = encode_error(found, "test")
            context.set_trailing_metadata(trailers)
            context.abort(code, words)
        return found


@contextmanager
def serving(api: CannedApi, *, delay_seconds: float = 0.0) -> Iterator[CannedApi]:
    """Serves on its port (0: a free one) until the context is left; from the start, or from a moment later."""
    server = grpc.server(ThreadPoolExecutor(8))
    for file in FILES:
        for service in file.DESCRIPTOR.services_by_name.values():
            handlers = {name: _handler(api, method) for name, method in service.methods_by_name.items()}
            server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service.full_name, handlers)])

    def begin() -> None:
        api.port = server.add_insecure_port(f"127.0.0.1:{api.port}")
        server.start()

    later = threading.Timer(delay_seconds, begin)
    if delay_seconds:
        later.start()
    else:
        begin()
    try:
        yield api
    finally:
        later.cancel()
        server.stop(None).wait()


def _handler(api: CannedApi, method: Any) -> Any:
    request_type: type[Message] = message_factory.GetMessageClass(method.input_type)
    kinds = {
        (False, False): grpc.unary_unary_rpc_method_handler, (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler, (True, True): grpc.stream_stream_rpc_method_handler,
    }  # fmt: skip

    def unary(request: Any, context: grpc.ServicerContext) -> Any:
        return api.reply(method.name, list(request) if method.client_streaming else request, context)

    def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield from api.reply(method.name, request, context)

    make: Any = kinds[method.client_streaming, method.server_streaming]
    return make(
        stream if method.server_streaming else unary,
        request_deserializer=request_type.FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )
