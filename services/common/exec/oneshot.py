"""A script that handles one request and ends: the form that is pleasant in sh.

`SCRIPT METHOD`: the request is one line of JSON on standard input, and its parameters that are texts, numbers or
truths stand in the environment as MOLN_<NAME>. It answers with a line {"result": …} or {"error": …}, or with its exit
status alone: 0 is done, 75 (EX_TEMPFAIL) is a failure that may pass by itself, anything else one that does not, and the
last line of standard error says what it was.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from services.common.exec import trouble
from services.common.exec.child import Child
from services.common.exec.flights import OnProgress
from services.common.exec.hearing import Hearing, TooMuchGarbage
from services.common.exec.lines import LineTooLong
from services.common.exec.program import CommandError
from services.common.exec.protocol import Failure, Params, Progress, Request, Result, request_line
from services.common.exec.trouble import NoMetrics, ScriptError, ScriptLimits, ScriptMetrics, outcome_of
from services.common.obs.logs import get_logger
from services.common.runtime.background import Background

EX_TEMPFAIL = 75
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_LAST_WORDS_S = 1.0


async def run_script(
    words: Sequence[str | Path],
    method: str,
    params: Params | None = None,
    *,
    limits: ScriptLimits | None = None,
    variables: Mapping[str, str] | None = None,
    on_progress: OnProgress | None = None,
    metrics: ScriptMetrics | None = None,
) -> dict[str, Any]:
    """Runs the script for one request; its result. Raises ScriptError.

    It has `limits.request_s`. When this returns, raises or is cancelled, nothing is left of its process group.
    """
    limits, metrics = limits or ScriptLimits(), metrics or NoMetrics()
    name, began = Path(words[0]).name, time.monotonic()
    error: ScriptError | None = None
    try:
        return await _Shot(name, limits, metrics, on_progress).run(words, method, params or {}, variables or {})
    except ScriptError as err:
        error = err
        raise
    finally:
        metrics.answered(name, method, outcome_of(error), time.monotonic() - began)


def variables_of(params: Params) -> dict[str, str]:
    """`{"pid_file": "/x", "force": true}` as MOLN_PID_FILE=/x and MOLN_FORCE=true; what is nested is left out."""
    found = {}
    for name, value in params.items():
        if not _NAME.fullmatch(name) or not isinstance(value, str | int | float) or "\0" in str(value):
            continue
        found[f"MOLN_{name.upper()}"] = str(value).lower() if isinstance(value, bool) else str(value)
    return found


class _Shot:
    """One run."""

    def __init__(self, name: str, limits: ScriptLimits, metrics: ScriptMetrics, on_progress: OnProgress | None) -> None:
        self._name, self._limits, self._metrics, self._on_progress = name, limits, metrics, on_progress
        self._log = get_logger("script", script=name)
        self._answer: Result | Failure | None = None
        self._is_excessive = False

    async def run(
        self, words: Sequence[str | Path], method: str, params: Params, variables: Mapping[str, str]
    ) -> dict[str, Any]:
        what = f"{self._name} {method}"
        environment = {**variables_of(params), **variables}
        try:
            child = await Child.start([*words, method], variables=environment)
        except CommandError as err:
            raise ScriptError(trouble.NOT_STARTED, f"{what}: {err}", is_retryable=False) from err
        hearing = Hearing(self._name, self._limits, self._metrics, self._log)
        try:
            async with asyncio.timeout(self._limits.request_s):
                how = await self._converse(child, hearing, Request(uuid.uuid4().hex, method, params))
        except TimeoutError as err:
            problem = f"it did not end within {self._limits.request_s:g} s and was stopped; it may have been done"
            raise ScriptError(trouble.TIMED_OUT, f"{what}: {problem}", is_retryable=True) from err
        finally:
            await child.end()
        if self._is_excessive:
            problem = "it said a line that is too long, or too much that is no message, and was stopped"
            raise ScriptError(trouble.DIED, f"{what}: {problem}; it may have been done", is_retryable=True)
        return self._judge(what, how, child.status or 0, hearing.last_words)

    async def _converse(self, child: Child, hearing: Hearing, request: Request) -> str:
        child.stdin.write(request_line(request))
        child.stdin.close()
        async with Background() as tasks:
            output = tasks.start(self._hear(child, hearing), name="script's output")
            errors = tasks.start(hearing.errors(child.stderr), name="script's errors")
            how = await child.wait()
            child.kill()
            await asyncio.wait({output, errors}, timeout=_LAST_WORDS_S)
            return how

    async def _hear(self, child: Child, hearing: Hearing) -> None:
        try:
            async for message in hearing.messages(child.stdout):
                if isinstance(message, Result | Failure):
                    self._answer = self._answer or message
                elif isinstance(message, Progress) and self._on_progress is not None:
                    self._on_progress(message)
        except (LineTooLong, TooMuchGarbage):
            self._is_excessive = True
            child.kill()

    def _judge(self, what: str, how: str, status: int, words: str) -> dict[str, Any]:
        match self._answer:
            case Failure() as failure:
                raise ScriptError(failure.reason, f"{what}: {failure.message}", is_retryable=failure.is_retryable)
            case Result() as result if status == 0:
                return result.value
            case None if status == 0:
                return {}
        said = f"{how}: {words}" if words else how
        if status < 0 or status > 128:
            raise ScriptError(trouble.DIED, f"{what}: {said}; it may have been done", is_retryable=True)
        raise ScriptError("", f"{what}: {said}", is_retryable=status == EX_TEMPFAIL)
