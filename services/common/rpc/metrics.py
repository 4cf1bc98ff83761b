"""Metrics of the calls that a service answers. Labels: method (the contract's) and status code."""

from __future__ import annotations

from services.common.obs.metrics import Metrics


class MethodMetrics:
    """The metrics of one method, with their label values looked up once."""

    def __init__(self, metrics: RpcMetrics, method: str) -> None:
        self._counter = metrics.calls
        self._method = method
        self._by_code = {"OK": metrics.calls.labels(method, "OK")}
        self.seconds = metrics.seconds.labels(method)
        self.open_streams = metrics.open_streams.labels(method)

    def ended(self, code: str) -> None:
        """Counts a call that ended with `code`."""
        child = self._by_code.get(code)
        if child is None:
            child = self._by_code[code] = self._counter.labels(self._method, code)
        child.inc()


class RpcMetrics:
    """The metrics of all methods of a service."""

    def __init__(self, metrics: Metrics) -> None:
        self.calls = metrics.counter("rpc_calls", "Calls answered, by method and status code.", ["method", "code"])
        self.seconds = metrics.histogram("rpc_seconds", "Time from request to reply of unary calls.", ["method"])
        self.open_streams = metrics.gauge("rpc_open_streams", "Streaming calls in progress.", ["method"])

    def of(self, method: str) -> MethodMetrics:
        """The metrics of one method; ask once and keep them."""
        return MethodMetrics(self, method)
