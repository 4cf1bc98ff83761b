"""A script that is kept running: requests in, answers out, restarted when it dies, nothing in flight forgotten.

What is said is docs/driver-protocol.md. Times, sizes and restarts are bounded; a request has exactly one end: a result,
or a ScriptError that says whether to try again.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from services.common.exec import trouble
from services.common.exec.child import Child
from services.common.exec.flights import Flight, Flights, Leg, OnProgress
from services.common.exec.hearing import Hearing
from services.common.exec.life import Life
from services.common.exec.program import CommandError
from services.common.exec.protocol import (
    RECOVER,
    Failure,
    Hello,
    Message,
    Params,
    Progress,
    Recovered,
    Request,
    Result,
    cancel_line,
    recover_line,
    request_line,
)
from services.common.exec.trouble import NoMetrics, ScriptError, ScriptLimits, ScriptMetrics, outcome_of
from services.common.obs.logs import get_logger
from services.common.runtime.background import Background
from services.common.runtime.loop import Backoff

STEADY_S = 30.0
"""A process that has lived so long begins the pauses between restarts anew."""


class Script:
    """`async with Script([path, …], name="fence") as script: await script.call("fence", {...})`.

    It is started at once and started again, after a pause that grows, whenever it ends. `variables` are added to the
    clean environment.
    """

    def __init__(
        self,
        words: Sequence[str | Path],
        *,
        name: str = "",
        limits: ScriptLimits | None = None,
        variables: Mapping[str, str] | None = None,
        folder: Path | None = None,
        metrics: ScriptMetrics | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self.name = name or Path(words[0]).name
        self._words, self._variables, self._folder = list(words), variables, folder
        self._limits = limits or ScriptLimits()
        self._metrics: ScriptMetrics = metrics or NoMetrics()
        self._backoff = backoff or Backoff(first=0.2, most=30.0)
        self._log = get_logger("script", script=self.name)
        self._flights = Flights()
        self._life: Life | None = None
        self._cause = "it has not started yet"
        self._tasks = Background()
        self._is_closing = False

    # ---------------------------------------------------------------------------------------------- for callers

    @property
    def hello(self) -> Hello | None:
        """What the present process said of itself; None while there is none that is ready."""
        return self._life.hello if self._life is not None else None

    async def call(
        self,
        method: str,
        params: Params | None = None,
        *,
        timeout_s: float | None = None,
        request_id: str = "",
        on_progress: OnProgress | None = None,
    ) -> dict[str, Any]:
        """Asks for `method` and returns the result. Raises ScriptError.

        `timeout_s` counts from now, so it includes the wait for a turn and for a restart. At its end, or when the
        caller is cancelled, the script is told to give the request up; other requests are not touched by that.
        """
        flight = self._flight(method, params, request_id, on_progress)
        return await self._await(flight, timeout_s)

    async def resume(
        self,
        method: str,
        params: Params | None = None,
        *,
        request_id: str,
        timeout_s: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> dict[str, Any]:
        """The same for a request that an earlier process of ours made under that id: the script is asked first what
        became of it, and it is made anew only where the script knows nothing of it. Without the capability `recover`
        it raises DIED."""
        flight = self._flight(method, params, request_id, on_progress)
        flight.leg = Leg.LOST
        return await self._await(flight, timeout_s)

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._tasks.start(self._keep_alive(), name=f"script {self.name}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Fails what is in flight, asks the script to end, and sees that it does."""
        self._is_closing = True
        for flight in list(self._flights.by_id.values()):
            self._flights.land(flight.request.id)
            flight.fail(self._error(flight, trouble.CLOSED, "the script is being shut down", is_retryable=True))
        try:
            if self._life is not None:
                await self._life.shut_down()
        finally:
            is_cancelled = isinstance(error, asyncio.CancelledError)
            await self._tasks.__aexit__(*((kind, error, trace) if is_cancelled else (None, None, None)))

    # ---------------------------------------------------------------------------------------------- requests

    def _flight(self, method: str, params: Params | None, request_id: str, on_progress: OnProgress | None) -> Flight:
        request = Request(request_id or uuid.uuid4().hex, method, params or {})
        return Flight(request, asyncio.get_running_loop().create_future(), on_progress)

    async def _await(self, flight: Flight, timeout_s: float | None) -> dict[str, Any]:
        began = time.monotonic()
        limit = self._limits.request_s if timeout_s is None else timeout_s
        error: ScriptError | None = None
        try:
            self._take_up(flight)
            async with asyncio.timeout(limit):
                return await flight.answer
        except TimeoutError as err:
            error = self._error(flight, trouble.TIMED_OUT, self._why_late(flight, limit), is_retryable=True)
            raise error from err
        except ScriptError as err:
            error = err
            raise
        finally:
            self._abandon(flight)
            outcome = "cancelled" if error is None and flight.answer.cancelled() else outcome_of(error)
            self._metrics.answered(self.name, flight.request.method, outcome, time.monotonic() - began)

    def _take_up(self, flight: Flight) -> None:
        if self._is_closing:
            raise self._error(flight, trouble.CLOSED, "the script is being shut down", is_retryable=True)
        if len(self._flights.by_id) >= self._limits.waiting:
            raise self._error(flight, trouble.BUSY, f"{self._limits.waiting} requests wait already", is_retryable=True)
        if len(request_line(flight.request)) > self._limits.line_bytes:
            problem = f"the request has more than {self._limits.line_bytes} bytes"
            raise self._error(flight, trouble.TOO_LARGE, problem, is_retryable=False)
        if flight.request.id in self._flights.by_id:
            problem = f"a request with the id {flight.request.id} is in flight"
            raise self._error(flight, trouble.BUSY, problem, is_retryable=True)
        self._flights.add(flight)
        self._ask_about_lost()
        self._pump()

    def _abandon(self, flight: Flight) -> None:
        if self._flights.abandon(flight):
            self._cancel(flight)

    def _cancel(self, flight: Flight) -> None:
        life, grace = self._life, self._limits.cancel_grace_s
        if life is None:
            return

        def look() -> None:
            if self._flights.by_id.get(flight.request.id) is flight and self._life is life:
                life.end(f"it did not answer to the cancel of {flight.request.method} within {grace:g} s")

        life.say(cancel_line(flight.request.id))
        asyncio.get_running_loop().call_later(grace, look)

    def _pump(self) -> None:
        life = self._life
        if life is not None and life.hello is not None:
            for flight in self._flights.to_send(life.hello.concurrency):
                life.say(request_line(flight.request))

    def _why_late(self, flight: Flight, limit: float) -> str:
        if flight.leg is Leg.SENT:
            return f"it did not answer within {limit:g} s"
        where = f"the script does not run: {self._cause}" if self.hello is None else "others were before it"
        return f"it was not begun within {limit:g} s; {where}"

    def _error(self, flight: Flight, reason: str, problem: str, *, is_retryable: bool) -> ScriptError:
        return ScriptError(reason, f"{self.name} {flight.request.method}: {problem}", is_retryable=is_retryable)

    # ---------------------------------------------------------------------------------------------- the process

    async def _keep_alive(self) -> None:
        failures = 0
        while not self._is_closing:
            began = time.monotonic()
            self._cause = await self._live()
            if self._is_closing:
                return
            failures = 1 if time.monotonic() - began > STEADY_S else failures + 1
            pause = self._backoff.pause(failures)
            self._metrics.died(self.name)
            self._log.warning("script has ended, it is started again", cause=self._cause, pause_s=round(pause, 2))
            await asyncio.sleep(pause)

    async def _live(self) -> str:
        try:
            child = await Child.start(self._words, folder=self._folder, variables=self._variables)
        except CommandError as err:
            return str(err)
        hearing = Hearing(self.name, self._limits, self._metrics, self._log)
        life = self._life = Life(
            child, hearing, self._limits, greeted=self._greeted, heard=self._heard, log=self._log
        )  # fmt: skip
        try:
            return await life.run()
        finally:
            self._life = None
            self._bury(life)

    def _greeted(self, hello: Hello) -> None:
        self._log.info("script runs", says=hello.name, version=hello.version, capabilities=sorted(hello.capabilities))
        self._ask_about_lost()
        self._pump()

    def _bury(self, life: Life) -> None:
        """The process is dead: what it had is lost, or to be asked about."""
        can_recover = life.hello is None or RECOVER in life.hello.capabilities
        for flight in self._flights.lose(can_recover=can_recover):
            again = flight.deaths < 2
            problem = "the script died over it" + ("" if again else ", twice") + "; it may have been done"
            flight.fail(self._error(flight, trouble.DIED, problem, is_retryable=again))

    def _ask_about_lost(self) -> None:
        life = self._life
        if life is None or life.hello is None:
            return
        lost = self._flights.ask()
        if not lost:
            return
        if RECOVER not in life.hello.capabilities:
            self._give_up(lost, "the script cannot tell what became of it; it may have been done")
            return
        life.say(recover_line([flight.request for flight in lost]))

        def look() -> None:
            silent = [each for each in lost if each.leg is Leg.ASKED] if self._life is life else []
            self._give_up(silent, f"the script did not tell within {self._limits.recover_s:g} s what became of it")
            self._pump()

        asyncio.get_running_loop().call_later(self._limits.recover_s, look)

    def _give_up(self, flights: Sequence[Flight], problem: str) -> None:
        for flight in flights:
            if self._flights.by_id.get(flight.request.id) is flight:
                self._flights.land(flight.request.id)
                flight.fail(self._error(flight, trouble.DIED, problem, is_retryable=True))

    # ---------------------------------------------------------------------------------------------- answers

    def _heard(self, message: Message) -> None:
        match message:
            case Result():
                if (flight := self._flights.land(message.id)) is not None:
                    flight.succeed(message.value)
            case Failure():
                if (flight := self._flights.land(message.id)) is not None:
                    flight.fail(self._error(flight, message.reason, message.message, is_retryable=message.is_retryable))
            case Recovered():
                self._found(message)
            case Progress():
                self._tell_progress(message)
            case _:
                return
        self._pump()

    def _found(self, message: Recovered) -> None:
        flight = self._flights.found(message.id, is_running=message.is_running)
        if flight is not None and flight.is_abandoned and message.is_running:
            self._cancel(flight)

    def _tell_progress(self, message: Progress) -> None:
        flight = self._flights.by_id.get(message.id)
        if flight is not None and flight.on_progress is not None and not flight.is_abandoned:
            flight.on_progress(message)
