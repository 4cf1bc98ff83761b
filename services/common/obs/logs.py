"""Structured logs: a constant event text and key=value fields, or JSON, on standard error.

The request id of the call being served is added to every line. Values under names that sound like secrets are never
written. Other libraries' logs (gRPC, asyncio) come out in the same form from WARNING on.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import FilteringBoundLogger, Processor

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

REQUEST_ID: ContextVar[str] = ContextVar("moln_request_id", default="")
"""The id of the request on whose behalf the present task works; empty outside of requests."""

_SECRET_WORDS = ("token", "secret", "password", "authorization", "ticket", "credential", "private_key")
HIDDEN = "(hidden)"


def configure_logs(
    service: str, *, form: LogFormat = "text", level: LogLevel = "info", stream: TextIO | None = None
) -> None:
    """Sets the logs of this process up; call it once, first. Calling it again replaces what was set."""
    target = stream if stream is not None else sys.stderr
    structlog.configure(
        processors=[_adder(service), _hide_secrets, structlog.processors.format_exc_info, _renderer(form)],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=target),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_Bridge()]
    root.setLevel(max(logging.WARNING, _LEVELS[level]))


def get_logger(name: str, **fields: object) -> FilteringBoundLogger:
    """The logger of one part of a service, for example "gateway"; `fields` are added to each of its lines."""
    logger: FilteringBoundLogger = structlog.get_logger(part=name, **fields)
    return logger


_LEVELS: dict[str, int] = {
    "debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR,
}  # fmt: skip
_stamp = structlog.processors.TimeStamper(fmt="iso", utc=True, key="time")


def _adder(service: str) -> Processor:
    def add(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        _stamp(logger, method, event)
        event["level"] = method if method != "exception" else "error"
        event["service"] = service
        if request_id := REQUEST_ID.get():
            event.setdefault("request_id", request_id)
        return event

    return add


def _hide_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        if value and any(word in name.lower() for word in _SECRET_WORDS):
            event[name] = HIDDEN
    return event


def _renderer(form: LogFormat) -> Processor:
    if form == "json":
        return structlog.processors.JSONRenderer(default=str, ensure_ascii=False)
    return _logfmt


_FIRST = ("time", "level", "service", "part", "event")


def _logfmt(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    """One line, whatever the values hold: line breaks are written as \\n, quotes are escaped."""
    names = [name for name in _FIRST if name in event] + sorted(name for name in event if name not in _FIRST)
    return " ".join(f"{name}={_quoted(event[name])}" for name in names)


def _quoted(value: object) -> str:
    text = "true" if value is True else "false" if value is False else "" if value is None else str(value)
    if text and all(char.isprintable() and char not in ' "=\\' for char in text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return '"' + "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in escaped) + '"'


class _Bridge(logging.Handler):
    """Takes what libraries log by the standard library's means."""

    def emit(self, record: logging.LogRecord) -> None:
        # The library's text varies from line to line, so it is a field and not the event.
        log = get_logger("library", library=record.name)
        log.log(record.levelno, "library message", message=record.getMessage(), exc_info=record.exc_info)
