"""What administrators have a host's script do: fence, power off, power on. Writes the request down, and waits.

The script is run by the leader (controllers/host_scripts.py); a caller who leaves does not end it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from moln.compute.v1 import host_pb2, vm_pb2
from services.api.core import host_operations as operations
from services.api.index.cloud import CloudIndex
from services.api.index.hosts import HostRecord
from services.api.usecases.hosts import Hosts, check_fenceable
from services.api.usecases.resources import swap
from services.api.usecases.streams import Streams
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError
from services.common.domain.keys import SCHEMA_VERSION
from services.common.domain.reasons import Reason
from services.common.domain.words import counted
from services.common.resources.records import cause_of
from services.common.store import Change, Store, Txn, key

WAIT_S = 150.0
"""How long a caller is kept; the script's own time-out is shorter."""
K = host_pb2.HostOperationKind
_CLOSED = frozenset(
    {
        vm_pb2.VM_STATE_PENDING, vm_pb2.VM_STATE_HELD, vm_pb2.VM_STATE_POWERED_OFF, vm_pb2.VM_STATE_SUSPENDED,
        vm_pb2.VM_STATE_STOPPED, vm_pb2.VM_STATE_UNDEPLOYED, vm_pb2.VM_STATE_DONE,
    }
)  # fmt: skip
"""States in which nothing of a VM runs."""
_OPTION = {K.HOST_OPERATION_KIND_FENCE: "fence-command"}


class HostScripts:
    """Requests to hosts' scripts."""

    def __init__(self, store: Store, cloud: CloudIndex, hosts: Hosts, streams: Streams) -> None:
        self._store, self._cloud, self._hosts, self._streams = store, cloud, hosts, streams
        self._waiters: dict[int, set[asyncio.Event]] = {}
        cloud.hosts.on_change(self._changed)

    async def fence(self, host_id: int, is_confirmed: bool, caller: Caller) -> host_pb2.Host:
        """Proves that nothing runs on a silent host, by its script or on the caller's word."""
        if is_confirmed:
            return await self._hosts.confirm_fence(host_id, caller)
        if not check_fenceable(self._hosts.creation.existing(host_id)):
            return self._hosts.message(self._hosts.creation.existing(host_id))
        await self._have_done(host_id, K.HOST_OPERATION_KIND_FENCE, caller)
        check_fenceable(self._hosts.creation.existing(host_id))
        return self._hosts.message(self._hosts.creation.existing(host_id))

    async def power_off(self, host_id: int, is_forced: bool, caller: Caller) -> host_pb2.Host:
        """Shuts a machine down; an enabled host is put into maintenance first."""
        record = self._hosts.creation.existing(host_id)
        self._command(record, K.HOST_OPERATION_KIND_POWER_OFF)
        assert record.spec is not None  # noqa: S101  for the type checker: `existing` has looked
        former = record.spec.value.mode
        if not is_forced:
            self._check_idle(record)
        if former in (host_pb2.HOST_MODE_UNSPECIFIED, host_pb2.HOST_MODE_ENABLED):
            await self._hosts.set_mode(host_id, host_pb2.HOST_MODE_MAINTENANCE, caller)
            try:
                if not is_forced:
                    self._check_idle(record)
            except MolnError:
                await self._hosts.set_mode(host_id, former, caller)
                raise
        await self._have_done(host_id, K.HOST_OPERATION_KIND_POWER_OFF, caller)
        return self._hosts.message(self._hosts.creation.existing(host_id))

    async def power_on(self, host_id: int, caller: Caller) -> host_pb2.Host:
        """Switches a machine on."""
        await self._have_done(host_id, K.HOST_OPERATION_KIND_POWER_ON, caller)
        return self._hosts.message(self._hosts.creation.existing(host_id))

    def _check_idle(self, record: HostRecord) -> None:
        """Raises HOST_IN_USE while anything may run there."""
        running = []
        for key_id in sorted(self._cloud.vms.by_host.get(record.id, ())):
            vm = self._cloud.vms.by_key(key_id)
            if vm is not None and vm.view.state not in _CLOSED:
                running.append(str(vm.id))
        if running:
            ids = ", ".join(running[:10]) + (", …" if len(running) > 10 else "")
            problem = f"it runs {counted(len(running), 'VM')} ({ids}); drain it first, or force it"
            raise MolnError(Reason.HOST_IN_USE, f"power off host {record.name}: {problem}", metadata={"vms": ids})

    def _command(self, record: HostRecord, kind: host_pb2.HostOperationKind) -> str:
        assert record.spec is not None  # noqa: S101  for the type checker: callers ask for existing hosts
        command = operations.command_of(record.spec.value, kind)
        if not command:
            option = _OPTION.get(kind, "power-command")
            problem = f"it has no script for it; see: moln host update {record.name} --{option} NAME"
            if kind == K.HOST_OPERATION_KIND_FENCE:
                problem += f"; or make sure that the machine is off: moln host fence {record.name} --confirmed"
            raise MolnError(Reason.SCRIPT_MISSING, f"{_what(kind)} host {record.name}: {problem}")
        return command

    async def _have_done(self, host_id: int, kind: host_pb2.HostOperationKind, caller: Caller) -> None:
        """Asks for it, or joins who has asked for the same, and returns once it is done. Raises SCRIPT_FAILED."""
        wanted: list[str] = []

        def build() -> Txn | None:
            record = self._hosts.creation.existing(host_id)
            self._command(record, kind)
            entry = record.operation
            assert record.spec is not None  # noqa: S101  for the type checker: `existing` has looked
            if entry is not None and operations.is_active(entry.value):
                _check_same(record, entry.value, kind)
                wanted[:] = [entry.value.id]
                return None
            cause = cause_of(caller, _what(kind).upper().replace(" ", "_"))
            operation = operations.new_operation(record.spec.value.uid, kind, cause)
            operation.schema_version = SCHEMA_VERSION
            wanted[:] = [operation.id]
            operation_key = key("host", host_id, "operation")
            txn = Txn().present(record.spec.key).unchanged(operation_key, entry.mod_revision if entry else 0)
            return txn.put(operation_key, operation)

        await swap(self._store, f"{_what(kind)} host {host_id}", build)
        await self._wait(host_id, wanted[0], kind)

    async def _wait(self, host_id: int, operation_id: str, kind: host_pb2.HostOperationKind) -> None:
        woken = asyncio.Event()
        with self._waits(host_id, woken), self._streams.wakes(woken):
            try:
                async with asyncio.timeout(WAIT_S):
                    while not self._is_over(host_id, operation_id, kind):
                        self._streams.check()
                        woken.clear()
                        await woken.wait()
            except TimeoutError as err:
                problem = f"its script has not ended after {WAIT_S:g} s, and goes on; see: moln host show {host_id}"
                raise MolnError(Reason.NOT_REACHED, f"{_what(kind)} host {host_id}: {problem}") from err

    def _is_over(self, host_id: int, operation_id: str, kind: host_pb2.HostOperationKind) -> bool:
        record = self._hosts.creation.existing(host_id)
        operation = record.operation.value if record.operation is not None else None
        if operation is None or operation.id != operation_id:
            raise MolnError(Reason.CONFLICT, f"{_what(kind)} host {record.name}: something else was asked for since")
        if operation.state == host_pb2.HOST_OPERATION_STATE_FAILED:
            raise MolnError(Reason.SCRIPT_FAILED, f"{_what(kind)} host {record.name}: {operation.message}")
        return bool(operation.state == host_pb2.HOST_OPERATION_STATE_DONE)

    @contextmanager
    def _waits(self, host_id: int, woken: asyncio.Event) -> Iterator[None]:
        waiters = self._waiters.setdefault(host_id, set())
        waiters.add(woken)
        try:
            yield
        finally:
            waiters.discard(woken)
            if not waiters:
                self._waiters.pop(host_id, None)

    def _changed(self, host: HostRecord, part: str, _: Change) -> None:
        if part in ("operation", "spec"):
            for woken in self._waiters.get(host.id, ()):
                woken.set()


def _check_same(record: HostRecord, active: host_pb2.HostOperation, kind: host_pb2.HostOperationKind) -> None:
    if active.kind != kind:
        problem = f"its script is at {_what(active.kind)} now; try again when that has ended"
        raise MolnError(Reason.CONFLICT, f"{_what(kind)} host {record.name}: {problem}")


def _what(kind: int) -> str:
    return operations.METHODS[kind].replace("_", " ")
