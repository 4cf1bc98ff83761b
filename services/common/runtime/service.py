"""The frame of every service's process: settings, logs, metrics, signals, readiness, and an ordered end.

`main` opens what it needs in one AsyncExitStack in the order store, server, loops, health, says `run.ready(...)` and
awaits `run.stopped()`. Leaving the stack then stops in the right order: health NOT_SERVING, loops, server, store.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import uvloop

from services.common.domain.errors import MolnError
from services.common.obs.endpoint import metrics_endpoint
from services.common.obs.logs import LogFormat, LogLevel, configure_logs, get_logger
from services.common.obs.metrics import Metrics
from services.common.runtime.clock import Clock, SystemClock
from services.common.runtime.listen import check_address, tls_files
from services.common.runtime.process import announce_ready, announce_stopping, follow_parent
from services.common.runtime.settings import SettingsError, environment_name, load_settings, option, render_settings

STOP_SECONDS = 30.0
IMPATIENT_SECONDS = 2.0
EXIT_FAILED, EXIT_SETTINGS = 1, 2


class ServiceSettings(Protocol):
    """What the settings of every service hold.

    Where they also have `tls_certificate` and `tls_key` (paths, or None), the metrics endpoint uses those.
    """

    @property
    def log_format(self) -> LogFormat: ...
    @property
    def log_level(self) -> LogLevel: ...
    @property
    def metrics_address(self) -> str: ...


S = TypeVar("S", bound=ServiceSettings)


def log_format_option() -> Any:
    """The `log_format` field of a service's settings."""
    return option("text", "Form of the log lines on standard error: text or json.")


def log_level_option() -> Any:
    """The `log_level` field of a service's settings."""
    return option("info", "The least level that is logged: debug, info, warning or error.")


def metrics_address_option(port: int) -> Any:
    """The `metrics_address` field of a service's settings."""
    return option(f"127.0.0.1:{port}", "Where Prometheus scrapes (port 0: any free one); empty for nowhere.")


class Run:
    """One run of a service: what its main function is given beside its settings."""

    def __init__(self, service: str, *, environ: Mapping[str, str], clock: Clock | None = None) -> None:
        self.service = service
        self.clock: Clock = clock or SystemClock()
        self.metrics = Metrics(service)
        self.log = get_logger("process")
        self.pages: dict[str, Callable[[], bytes]] = {}
        """JSON documents that the metrics endpoint serves beside the metrics, by path; each is made when asked for."""
        self._environ = environ
        self._stopping = asyncio.Event()
        self._addresses: dict[str, str] = {}

    def ready(self, addresses: Mapping[str, str] | None = None) -> None:
        """Says to whoever started the process that it answers, and where: {"grpc": "127.0.0.1:2632"}."""
        self._addresses.update(addresses or {})
        announce_ready(self._environ, self._addresses)
        self.log.info("service ready", **self._addresses)

    def stop(self, cause: str) -> None:
        """Asks for the ordered end; safe to call twice."""
        if not self._stopping.is_set():
            self.log.info("service stopping", cause=cause)
            announce_stopping(self._environ)
            self._stopping.set()

    @property
    def is_stopping(self) -> bool:
        """Whether the end has been asked for."""
        return self._stopping.is_set()

    async def stopped(self) -> None:
        """Returns when the end has been asked for: by a signal, by the end of the parent, or by `stop`."""
        await self._stopping.wait()

    @property
    def metrics_address(self) -> str:
        """Where Prometheus scrapes this process, with the real port; empty where nowhere."""
        return self._addresses.get("metrics", "")

    def knows(self, name: str, address: str) -> None:
        """Adds an address to those that `ready` announces."""
        self._addresses[name] = address


Main = Callable[[S, Run], Awaitable[None]]


def run_service(
    service: str,
    settings_type: type[S],
    main: Main[S],
    *,
    argv: Sequence[str] | None = None,
    environ: Mapping[str, str] | None = None,
    expected: tuple[type[Exception], ...] = (),
) -> int:
    """Runs `main` to its end and returns the exit status; never raises, never shows a traceback for what is `expected`.

    MolnError, SettingsError and the types in `expected` end the process with one line on standard error.
    """
    environ = os.environ if environ is None else environ
    known: tuple[type[Exception], ...] = (MolnError, *expected)
    try:
        arguments = _parse(service, argv)
        if arguments.print_config:
            sys.stdout.write(render_settings(settings_type, service))
            return 0
        file = arguments.config or environ.get(environment_name(service, "config"))
        settings = load_settings(settings_type, service, file=Path(file) if file else None, environ=environ)
        configure_logs(service, form=settings.log_format, level=settings.log_level)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_frame(service, settings, main, environ))
    except SettingsError as err:
        return _say(service, str(err), EXIT_SETTINGS)
    except known as err:
        return _say(service, str(err), EXIT_FAILED)
    except ExceptionGroup as group:
        return _end_of_group(service, group, (SettingsError, *known))
    except asyncio.CancelledError:
        return _say(service, "the ordered end took too long and was cut short", EXIT_FAILED)
    except Exception as err:  # noqa: BLE001  the outermost frame: what nobody expected is logged once and ends the process
        get_logger("process").error("service failed", error=repr(err), exc_info=err)
        return EXIT_FAILED
    return 0


async def _frame(service: str, settings: S, main: Main[S], environ: Mapping[str, str]) -> None:
    run = Run(service, environ=environ)
    with _signals(run):
        follow_parent(environ, lambda: run.stop("the process that started this one has ended"))
        async with contextlib.AsyncExitStack() as stack:
            if settings.metrics_address:
                run.knows("metrics", await _metrics(stack, run, settings))
            try:
                await main(settings, run)
            finally:
                run.stop("the main function has ended")


async def _metrics(stack: contextlib.AsyncExitStack, run: Run, settings: ServiceSettings) -> str:
    certificate = getattr(settings, "tls_certificate", None) or getattr(settings, "tls_cert", None)
    tls = tls_files(certificate, getattr(settings, "tls_key", None))
    where = check_address(settings.metrics_address, tls, what="metrics_address")
    try:
        endpoint = metrics_endpoint(
            run.metrics,
            where.host,
            where.port,
            tls=tls.server_context() if tls is not None and not where.is_local else None,
            is_healthy=lambda: not run.is_stopping,
            pages=run.pages,
        )
        return f"{where.host}:{await stack.enter_async_context(endpoint)}"
    except OSError as err:
        raise where.refused(err) from err


@contextlib.contextmanager
def _signals(run: Run) -> Iterator[None]:
    """SIGTERM or SIGINT asks for the ordered end; asked again later, or after STOP_SECONDS, it ends hard.

    "Later" is IMPATIENT_SECONDS: one ^C can arrive as several signals, from the terminal, the parent and its death.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    timers: list[asyncio.TimerHandle] = []
    asked: list[float] = []

    def received(name: str) -> None:
        assert task is not None  # noqa: S101  for the type checker: this is called from a coroutine
        asked.append(loop.time())
        run.stop(name)
        if len(asked) == 1:
            timers.append(loop.call_later(STOP_SECONDS, task.cancel))
        elif asked[-1] - asked[0] > IMPATIENT_SECONDS:
            task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, received, number.name)
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _parse(service: str, argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m services.{service}", description=f"Runs moln's {service}.")
    parser.add_argument("--config", metavar="FILE", help="settings in TOML; the environment goes before them")
    parser.add_argument("--print-config", action="store_true", help="print every setting with its default, and end")
    return parser.parse_args(argv)


def _say(service: str, text: str, status: int) -> int:
    sys.stderr.write(f"moln {service}: {text}\n")
    return status


def _end_of_group(service: str, group: ExceptionGroup[Exception], expected: tuple[type[Exception], ...]) -> int:
    """Tasks of a group that failed: one line where all failures are expected ones, the log otherwise."""
    known, unknown = group.split(expected)
    if unknown is not None or known is None:
        get_logger("process").error("service failed", error=repr(group), exc_info=group)
        return EXIT_FAILED
    first = _first(known)
    return _say(service, str(first), EXIT_SETTINGS if isinstance(first, SettingsError) else EXIT_FAILED)


def _first(group: BaseExceptionGroup[Exception]) -> Exception:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner
