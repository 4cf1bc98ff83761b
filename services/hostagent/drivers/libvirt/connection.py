"""The only place that imports libvirt: one connection, its calls in a bounded pool of threads, its events.

Reconnects by itself at the next call. Must know nothing of VMs: work is handed in as functions of the raw connection.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import libvirt
import libvirt_qemu

from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.obs.logs import get_logger
from services.hostagent.drivers.libvirt.onebyone import OneByOne
from services.hostagent.drivers.libvirt.patience import Patience

T = TypeVar("T")
Raw = Any
"""libvirt's own objects: its Python binding has no types."""

Abort = Callable[[], Awaitable[None]]

CALL_SECONDS = 10.0
CLOSE_SECONDS = 2.0
WORKERS = 8
MOST_HANGING = 8
KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT = 5, 3

_DOMAIN_IS_NOT_THERE = frozenset({libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_NO_DOMAIN_METADATA})
_AGENT_IS_SILENT = frozenset(
    {
        libvirt.VIR_ERR_AGENT_UNRESPONSIVE, libvirt.VIR_ERR_AGENT_UNSYNCED, libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
        libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
    }
)  # fmt: skip
_IS_SO_ALREADY = frozenset({libvirt.VIR_ERR_OPERATION_INVALID})


class HypervisorError(MolnError):
    """The hypervisor refused, or does not answer; the message holds its own words."""


class HypervisorSilent(HypervisorError):
    """The hypervisor does not answer in time; whether it has done what it was asked is not known."""


class GuestMissing(HypervisorError):
    """The hypervisor has no such guest."""


class WrongState(HypervisorError):
    """The guest is not in a state that allows it: usually it is already what was asked for."""


@dataclass(frozen=True, slots=True)
class DomainEvent:
    """Something has happened to a domain; `uid` is empty when the connection was lost, so that all may have changed."""

    uid: str
    is_reboot: bool = False
    """The guest began anew, without having been off."""


class _Line:
    """One connection to the hypervisor, with threads of its own. All but `run` and `drop` is for the event loop."""

    def __init__(self, workers: int, open: Callable[[], Raw]) -> None:
        self.pool: Executor = ThreadPoolExecutor(workers, thread_name_prefix="libvirt") if workers else OneByOne()
        self.under_way = 0
        self._open, self._opening = open, threading.Lock()
        self._raw: Raw = None

    def run(self, work: Callable[[Raw], T], what: str) -> T:
        """In a thread of the pool: opens the connection where it is not, or has broken."""
        try:
            return work(self._ensure())
        except libvirt.libvirtError as err:
            raise _translated(err, what) from err

    def _ensure(self) -> Raw:
        with self._opening:
            if self._raw is not None and not _is_alive(self._raw):
                self.drop()
            if self._raw is None:
                self._raw = self._open()
            return self._raw

    def drop(self) -> None:
        """In a thread of the pool: closes the connection."""
        raw, self._raw = self._raw, None
        if raw is not None:
            _try(raw.unregisterCloseCallback)
            _try(raw.close)

    def abandon(self) -> None:
        """Closes it once what is under way has ended, and waits for nothing."""
        self.pool.submit(self.drop)
        self.pool.shutdown(wait=False)


class LibvirtConnection:
    """A connection that is opened when first needed, and opened anew when it has broken, or when a call hangs.

    While one call waits for a guest or a hypervisor that hangs, libvirt's client may hold up all others on the same
    connection, and its thread is lost to them: so the connection is left to it, and others go on by a new one. Only so
    many are left to hang at a time; then calls are refused at once, until one of them has come back.
    Without events it is also without keep-alive. With no `workers` its calls go one after the other, and the end of the
    process waits for none of them.
    """

    def __init__(
        self, uri: str, *, workers: int = WORKERS, call_seconds: float = CALL_SECONDS, has_events: bool = True,
        patience: Patience | None = None,
    ) -> None:  # fmt: skip
        self.uri, self.patience = uri, patience or Patience()
        self._workers, self._has_events = workers, has_events
        self._call_seconds = call_seconds
        self._line = _Line(workers, self._open)
        self._hanging: set[_Line] = set()
        self._listeners: list[Callable[[DomainEvent], None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._log = get_logger("libvirt")

    def another(self, workers: int) -> LibvirtConnection:
        """One more to the same hypervisor, without events, and waited for no longer: for calls that take long."""
        more = LibvirtConnection(self.uri, workers=workers, has_events=False, patience=self.patience)
        more._call_seconds = self._call_seconds
        return more

    async def call(
        self, work: Callable[[Raw], T], *, what: str, seconds: float | None = None, abort: Abort | None = None
    ) -> T:
        """`work(connection)` in a thread. Raises HypervisorError that says `what` was being attempted.

        After `seconds` the caller is free again (HypervisorSilent); the thread stays busy until libvirt returns. A
        caller that is cancelled goes on only when the call has ended, or after `seconds`: libvirt's calls cannot be
        stopped half-way but by what `abort` does.
        """
        loop = self._loop = asyncio.get_running_loop()
        limit = seconds or self._call_seconds
        if len(self._hanging) >= MOST_HANGING or self.patience.is_lost:
            raise HypervisorSilent(Reason.HYPERVISOR_FAILED, f"{what}: {self.uri} does not answer what it was asked")
        line = self._line
        line.under_way += 1
        under_way = loop.run_in_executor(line.pool, line.run, work, what)
        under_way.add_done_callback(lambda ended: self._ended(line, ended))
        try:
            await self.patience.wait(under_way, limit)
        except asyncio.CancelledError:
            if abort is not None:
                await abort()
            await self.patience.wait(under_way, limit)
            raise
        if not under_way.done():
            self._leave(line)
            raise HypervisorSilent(Reason.HYPERVISOR_FAILED, f"{what}: {self.uri} did not answer within {limit:g} s")
        return under_way.result()

    def _leave(self, line: _Line) -> None:
        """Others go on by a new connection."""
        if line is self._line:
            self._log.warning("a call hangs; a new connection is used", uri=self.uri, hanging=len(self._hanging) + 1)
            self._hanging.add(line)
            self._line = _Line(self._workers, self._open)

    def _ended(self, line: _Line, ended: asyncio.Future[Any]) -> None:
        line.under_way -= 1
        if not ended.cancelled():
            ended.exception()  # what became of a call for which nobody waits any more is not a loose end
        if line in self._hanging and not line.under_way:
            self._hanging.discard(line)
            line.abandon()

    def listen(self, heard: Callable[[DomainEvent], None]) -> None:
        """From now on calls `heard` on the event loop of the callers when a domain has changed. Never raises."""
        self._listeners.append(heard)

    def ignore(self, heard: Callable[[DomainEvent], None]) -> None:
        """No longer calls `heard`."""
        self._listeners.remove(heard)

    async def close(self) -> None:
        """Closes the connection; a later call would open it anew. What hangs is left to itself."""
        line = self._line
        for hanging in self._hanging:
            hanging.pool.shutdown(wait=False, cancel_futures=True)
        await self.patience.wait(asyncio.get_running_loop().run_in_executor(line.pool, line.drop), CLOSE_SECONDS)
        line.pool.shutdown(wait=False, cancel_futures=True)

    def abandon(self) -> None:
        """Closes the connection once what is under way has ended, and waits for nothing. It cannot be used again."""
        self._line.abandon()

    def _open(self) -> Raw:
        _EVENTS.start()
        try:
            raw = libvirt.open(self.uri)
        except libvirt.libvirtError as err:
            message = f"cannot connect to the hypervisor {self.uri}: {err.get_error_message()}"
            raise HypervisorError(Reason.HYPERVISOR_FAILED, f"{message}; is libvirtd running?") from err
        if self._has_events:
            _try(raw.setKeepAlive, KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT)
            _try(raw.registerCloseCallback, self._closed, None)
            _try(raw.domainEventRegisterAny, None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._happened, None)
            _try(raw.domainEventRegisterAny, None, libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, self._rebooted, None)
        self._log.info("connected to the hypervisor", uri=self.uri)
        return raw

    def _happened(self, _raw: Raw, domain: Raw, _event: int, _detail: int, _opaque: object) -> None:
        self._tell(DomainEvent(domain.UUIDString()))

    def _rebooted(self, _raw: Raw, domain: Raw, _opaque: object) -> None:
        self._tell(DomainEvent(domain.UUIDString(), is_reboot=True))

    def _closed(self, _raw: Raw, _reason: int, _opaque: object) -> None:
        self._log.warning("the connection to the hypervisor was lost", uri=self.uri)
        self._tell(DomainEvent(""))

    def _tell(self, event: DomainEvent) -> None:
        """Runs in the thread of events; the listeners run on the loop."""
        if self._loop is None or self._loop.is_closed():
            return
        for heard in self._listeners:
            self._loop.call_soon_threadsafe(heard, event)


def agent_command(domain: Raw, text: str, seconds: int) -> str:
    """What the agent in a guest answers. Raises AGENT_SILENT, or EXEC_REFUSED with the agent's own words."""
    try:
        return str(libvirt_qemu.qemuAgentCommand(domain, text, seconds, 0))
    except libvirt.libvirtError as err:
        code, words = err.get_error_code(), err.get_error_message()
        if code in _AGENT_IS_SILENT:
            remedy = "is an agent (qemu-guest-agent) installed and running in it?"
            raise HypervisorError(Reason.AGENT_SILENT, f"the guest's agent does not answer: {words}; {remedy}") from err
        if code == libvirt.VIR_ERR_INTERNAL_ERROR:
            raise HypervisorError(Reason.EXEC_REFUSED, f"the guest's agent refuses: {words}") from err
        raise


def monitor_command(domain: Raw, text: str) -> str:
    """What QEMU itself answers to a command of its monitor, as JSON: for what libvirt has no call for."""
    return str(libvirt_qemu.qemuMonitorCommand(domain, text, 0))


def receive_all(stream: Raw, most: int) -> bytes:
    """Everything that a stream brings, up to a limit. Raises HypervisorError beyond it."""
    pieces: list[bytes] = []
    size = 0
    while data := stream.recv(256 * 1024):
        size += len(data)
        if size > most:
            _try(stream.abort)
            raise HypervisorError(Reason.HYPERVISOR_FAILED, f"the hypervisor sends more than {most} bytes")
        pieces.append(data)
    stream.finish()
    return b"".join(pieces)


class StreamChannel:
    """A libvirt stream as bytes both ways. `received` is called in the thread of events, with b"" at the end."""

    def __init__(self, stream: Raw, received: Callable[[bytes], None]) -> None:
        self._stream, self._received = stream, received
        self._lock = threading.Lock()
        self._is_open = True

    @staticmethod
    def new_stream(raw: Raw) -> Raw:
        """A stream that never blocks, for an operation such as opening a console."""
        return raw.newStream(libvirt.VIR_STREAM_NONBLOCK)

    def start(self) -> None:
        """Begins to receive."""
        wanted = libvirt.VIR_STREAM_EVENT_READABLE | libvirt.VIR_STREAM_EVENT_ERROR | libvirt.VIR_STREAM_EVENT_HANGUP
        self._stream.eventAddCallback(wanted, self._ready, None)

    def pause(self, is_paused: bool) -> None:
        """While paused nothing is received: the other end waits."""
        readable = 0 if is_paused else libvirt.VIR_STREAM_EVENT_READABLE
        with self._lock:
            if self._is_open:
                wanted = readable | libvirt.VIR_STREAM_EVENT_ERROR | libvirt.VIR_STREAM_EVENT_HANGUP
                _try(self._stream.eventUpdateCallback, wanted)

    def send(self, data: bytes) -> int:
        """How many bytes were taken; 0 where the other end is not ready for more. HypervisorError once it is closed."""
        with self._lock:
            if not self._is_open:
                raise HypervisorError(Reason.STATE_FORBIDS, "the console is closed")
            try:
                return max(0, int(self._stream.send(data)))
            except libvirt.libvirtError as err:
                raise _translated(err, "writing to the console") from err

    def close(self) -> None:
        """Ends the stream; safe to call twice."""
        with self._lock:
            if not self._is_open:
                return
            self._is_open = False
            _try(self._stream.eventRemoveCallback)
            _try(self._stream.abort)
        self._received(b"")

    def _ready(self, _stream: Raw, events: int, _opaque: object) -> None:
        if events & libvirt.VIR_STREAM_EVENT_READABLE:
            data = self._receive()
            if isinstance(data, bytes) and data:
                self._received(data)
                return
            if data == -2:  # nothing there after all
                return
        self.close()

    def _receive(self) -> bytes | int:
        try:
            data: bytes | int = self._stream.recv(64 * 1024)
            return data
        except libvirt.libvirtError:
            return b""


class _EventThread:
    """libvirt's own event loop: one thread for the process, started before the first connection."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        with self._lock:
            if self._thread is None:
                libvirt.registerErrorHandler(lambda _context, _error: None, None)
                libvirt.virEventRegisterDefaultImpl()
                self._thread = threading.Thread(target=self._run, name="libvirt-events", daemon=True)
                self._thread.start()

    @staticmethod
    def _run() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()


_EVENTS = _EventThread()


class Flags:
    """libvirt's numbers that the driver needs, under their own names."""

    UNDEFINE_ALL = (
        libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
        | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    )
    """Everything that the hypervisor has of a guest, but for what the guest itself has written."""
    KEEP_STATE = libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM | getattr(libvirt, "VIR_DOMAIN_UNDEFINE_KEEP_TPM", 0)
    KEEP_NVRAM = libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM
    ERASE_STATE = libvirt.VIR_DOMAIN_UNDEFINE_NVRAM | getattr(libvirt, "VIR_DOMAIN_UNDEFINE_TPM", 0)
    DEFINE_VALIDATE = libvirt.VIR_DOMAIN_DEFINE_VALIDATE
    PCI_DEVICES = libvirt.VIR_CONNECT_LIST_NODE_DEVICES_CAP_PCI_DEV
    METADATA_ELEMENT = libvirt.VIR_DOMAIN_METADATA_ELEMENT
    GRAPHICS_SKIP_PASSWORD = libvirt.VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH
    CONSOLE_FORCE = libvirt.VIR_DOMAIN_CONSOLE_FORCE
    AUTODESTROY = libvirt.VIR_DOMAIN_START_AUTODESTROY
    STATS = (
        libvirt.VIR_DOMAIN_STATS_STATE
        | libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
        | libvirt.VIR_DOMAIN_STATS_BALLOON
        | libvirt.VIR_DOMAIN_STATS_VCPU
        | libvirt.VIR_DOMAIN_STATS_INTERFACE
        | libvirt.VIR_DOMAIN_STATS_BLOCK
    )
    STATS_NOWAIT = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
    ALL_CELLS = libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS
    ALL_CPUS = libvirt.VIR_NODE_CPU_STATS_ALL_CPUS
    ACTIVE_STATES = frozenset(
        {
            libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED, libvirt.VIR_DOMAIN_PAUSED,
            libvirt.VIR_DOMAIN_SHUTDOWN, libvirt.VIR_DOMAIN_PMSUSPENDED,
        }
    )  # fmt: skip
    OFF_STATES = frozenset({libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_CRASHED})
    CRASHED = libvirt.VIR_DOMAIN_CRASHED
    STATE_NAMES: Mapping[int, str] = {
        libvirt.VIR_DOMAIN_RUNNING: "running", libvirt.VIR_DOMAIN_BLOCKED: "running",
        libvirt.VIR_DOMAIN_SHUTDOWN: "running", libvirt.VIR_DOMAIN_PAUSED: "paused",
        libvirt.VIR_DOMAIN_PMSUSPENDED: "paused", libvirt.VIR_DOMAIN_SHUTOFF: "off",
        libvirt.VIR_DOMAIN_CRASHED: "crashed",
    }  # fmt: skip
    OFF_SHUT_DOWN = libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN
    OFF_CRASHED = frozenset({libvirt.VIR_DOMAIN_SHUTOFF_CRASHED, libvirt.VIR_DOMAIN_SHUTOFF_FAILED})
    OFF_DESTROYED = libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED


def is_local(uri: str) -> bool:
    """Whether the hypervisor is on this machine: the URI names no other one."""
    return not uri.partition("://")[2].partition("/")[0]


class LiveFlags:
    """The same for what is done to guests that run."""

    LIVE, CONFIG = libvirt.VIR_DOMAIN_AFFECT_LIVE, libvirt.VIR_DOMAIN_AFFECT_CONFIG
    SECURE = libvirt.VIR_DOMAIN_XML_SECURE
    MIGRATABLE = libvirt.VIR_DOMAIN_XML_MIGRATABLE
    SAVE_IMAGE_SECURE = libvirt.VIR_DOMAIN_SAVE_IMAGE_XML_SECURE
    RESTORE_PAUSED = libvirt.VIR_DOMAIN_SAVE_PAUSED
    UNKNOWN = libvirt.VIR_DOMAIN_SHUTOFF_UNKNOWN
    """A hypervisor's library that was begun anew does not remember why a guest is off."""
    OFF_SAVED = libvirt.VIR_DOMAIN_SHUTOFF_SAVED
    OFF_MIGRATED = (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED)
    INACTIVE = libvirt.VIR_DOMAIN_XML_INACTIVE
    MIGRATE = (
        libvirt.VIR_MIGRATE_LIVE
        | libvirt.VIR_MIGRATE_PEER2PEER
        | libvirt.VIR_MIGRATE_PERSIST_DEST
        | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
        | libvirt.VIR_MIGRATE_ABORT_ON_ERROR
    )
    MIGRATE_COPY_DISKS = libvirt.VIR_MIGRATE_NON_SHARED_INC
    MIGRATE_UNSAFE = libvirt.VIR_MIGRATE_UNSAFE
    MIGRATE_POSTCOPY = libvirt.VIR_MIGRATE_POSTCOPY
    PAUSED = libvirt.VIR_DOMAIN_PAUSED
    PAUSED_MIGRATION = libvirt.VIR_DOMAIN_PAUSED_MIGRATION
    PAUSED_STARTING_UP = libvirt.VIR_DOMAIN_PAUSED_STARTING_UP
    JOB_NONE = libvirt.VIR_DOMAIN_JOB_NONE
    JOB_COMPLETED = libvirt.VIR_DOMAIN_JOB_COMPLETED
    JOB_STATS_COMPLETED = libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED
    MODIFY_FORCE = libvirt.VIR_DOMAIN_DEVICE_MODIFY_FORCE
    RESIZE_BYTES = libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES
    SNAPSHOT_REDEFINE = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE
    SNAPSHOT_METADATA_ONLY = libvirt.VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY
    SNAPSHOT_SECURE = libvirt.VIR_DOMAIN_SNAPSHOT_XML_SECURE
    REVERT_RUNNING = libvirt.VIR_DOMAIN_SNAPSHOT_REVERT_RUNNING
    REVERT_FORCE = libvirt.VIR_DOMAIN_SNAPSHOT_REVERT_FORCE


class MigrateParameters:
    """Names of what a migration is told."""

    DEST_XML = libvirt.VIR_MIGRATE_PARAM_DEST_XML
    PERSIST_XML = libvirt.VIR_MIGRATE_PARAM_PERSIST_XML
    BANDWIDTH = libvirt.VIR_MIGRATE_PARAM_BANDWIDTH
    DISKS = libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS
    URI = libvirt.VIR_MIGRATE_PARAM_URI
    LISTEN_ADDRESS = libvirt.VIR_MIGRATE_PARAM_LISTEN_ADDRESS


def version_text(number: int) -> str:
    """libvirt's 7002022 as 7.2.22."""
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def _is_alive(raw: Raw) -> bool:
    try:
        return bool(raw.isAlive())
    except libvirt.libvirtError:
        return False


def or_none(function: Callable[[], T]) -> T | None:
    """What the function returns, or None where libvirt refuses: the domain has gone, or cannot do that."""
    try:
        return function()
    except libvirt.libvirtError:
        return None


def failure_of(function: Callable[[], T]) -> T | HypervisorError:
    """What the function returns, or how libvirt refuses, as a value."""
    try:
        return function()
    except libvirt.libvirtError as err:
        return _translated(err, "asking for a guest")


def _try(function: Callable[..., object], *arguments: object) -> None:
    """Not every hypervisor can do everything; what it cannot is done without."""
    try:
        function(*arguments)
    except libvirt.libvirtError:
        return


def _translated(err: libvirt.libvirtError, what: str) -> HypervisorError:
    code = err.get_error_code()
    kind = GuestMissing if code in _DOMAIN_IS_NOT_THERE else WrongState if code in _IS_SO_ALREADY else HypervisorError
    return kind(Reason.HYPERVISOR_FAILED, f"{what}: {err.get_error_message() or err}")
