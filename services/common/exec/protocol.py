"""The lines that moln and a script say to each other: docs/driver-protocol.md in types. Pure: bytes in, values out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PROTOCOL = 1
RECOVER = "recover"
"""The capability of a script that finds again what was in flight when it died."""
MAX_CONCURRENCY = 1000
_LEVELS = {"debug", "info", "warning", "error"}

Params = Mapping[str, Any]


class NotAMessage(Exception):
    """The line is none that a script may say; the text says why."""


@dataclass(frozen=True, slots=True)
class Hello:
    """The first thing that a script says."""

    name: str
    version: str
    capabilities: frozenset[str]
    concurrency: int


@dataclass(frozen=True, slots=True)
class Result:
    """A request is done. `id` is empty in the one-shot form."""

    id: str
    value: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Failure:
    """A request has failed."""

    id: str
    message: str
    reason: str
    is_retryable: bool


@dataclass(frozen=True, slots=True)
class Progress:
    """A request is under way."""

    id: str
    percent: int
    text: str


@dataclass(frozen=True, slots=True)
class Recovered:
    """What has become of a request of an earlier life: still `is_running`, or the script knows nothing of it."""

    id: str
    is_running: bool


@dataclass(frozen=True, slots=True)
class Log:
    """Something for the log."""

    level: str
    text: str


Message = Hello | Result | Failure | Progress | Recovered | Log


@dataclass(frozen=True, slots=True)
class Request:
    """What a script is asked for."""

    id: str
    method: str
    params: Params


def request_line(request: Request) -> bytes:
    """A request."""
    return _line(_as_object(request))


def recover_line(requests: Sequence[Request]) -> bytes:
    """What has become of these?"""
    return _line({RECOVER: [_as_object(each) for each in requests]})


def cancel_line(request_id: str) -> bytes:
    """Give it up."""
    return _line({"cancel": request_id})


def shutdown_line() -> bytes:
    """Come to an end."""
    return _line({"shutdown": {}})


def parse(line: bytes) -> Message:
    """What a script has said. Raises NotAMessage."""
    try:
        said = json.loads(line)
    except (ValueError, RecursionError) as err:
        raise NotAMessage("it is no JSON") from err
    if not isinstance(said, dict):
        raise NotAMessage("it is no JSON object")
    if "hello" in said:
        return _hello(_object(said, "hello"))
    if "log" in said:
        return _log(_object(said, "log"))
    return _about_a_request(said)


def _about_a_request(said: dict[str, Any]) -> Message:
    request_id = said.get("id", "")
    if not isinstance(request_id, str):
        raise NotAMessage("its id is not the text that the request had")
    if "result" in said:
        return Result(request_id, _object(said, "result"))
    if "error" in said:
        return _failure(request_id, _object(said, "error"))
    if "progress" in said:
        return _progress(request_id, _object(said, "progress"))
    if said.get("recovered") in ("running", "unknown"):
        return Recovered(request_id, said["recovered"] == "running")
    raise NotAMessage("it has none of hello, result, error, progress, recovered, log")


def _hello(said: dict[str, Any]) -> Hello:
    if said.get("protocol") != PROTOCOL:
        raise NotAMessage(f"its hello names protocol {said.get('protocol')!r}, and {PROTOCOL} is spoken here")
    capabilities, concurrency = said.get("capabilities", []), said.get("concurrency", 1)
    if not isinstance(capabilities, list) or not all(isinstance(each, str) for each in capabilities):
        raise NotAMessage("capabilities of its hello is not a list of texts")
    if not isinstance(concurrency, int) or not 1 <= concurrency <= MAX_CONCURRENCY:
        raise NotAMessage(f"concurrency of its hello is not a number from 1 to {MAX_CONCURRENCY}")
    return Hello(_text(said, "name"), _text(said, "version"), frozenset(capabilities), concurrency)


def _failure(request_id: str, said: dict[str, Any]) -> Failure:
    return Failure(request_id, _text(said, "message") or "it gave no reason", _text(said, "reason"),
                   said.get("retryable") is True)  # fmt: skip


def _progress(request_id: str, said: dict[str, Any]) -> Progress:
    percent = said.get("percent", 0)
    if isinstance(percent, bool) or not isinstance(percent, int | float) or not 0 <= percent <= 100:
        raise NotAMessage("percent of its progress is not a number from 0 to 100")
    return Progress(request_id, int(percent), _text(said, "text"))


def _log(said: dict[str, Any]) -> Log:
    level = _text(said, "level") or "info"
    if level not in _LEVELS:
        raise NotAMessage(f"level of its log is not one of {', '.join(sorted(_LEVELS))}")
    return Log(level, _text(said, "text"))


def _object(said: dict[str, Any], name: str) -> dict[str, Any]:
    value = said[name]
    if not isinstance(value, dict):
        raise NotAMessage(f"{name} is no JSON object")
    return value


def _text(said: dict[str, Any], name: str) -> str:
    value = said.get(name, "")
    if not isinstance(value, str):
        raise NotAMessage(f"{name} is not a text")
    return value


def _as_object(request: Request) -> dict[str, Any]:
    return {"id": request.id, "method": request.method, "params": dict(request.params)}


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
