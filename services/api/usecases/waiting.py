"""Waiting for VMs to reach a state, without polling: the index wakes those who wait for a VM."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from moln.compute.v1 import vm_pb2
from services.api.index.cloud import CloudIndex
from services.api.index.hosts import HostIndex
from services.api.index.vms import VmRecord
from services.api.usecases.streams import Streams
from services.api.usecases.vms import Vms
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason

_ENDED = frozenset({vm_pb2.VM_STATE_DONE, vm_pb2.VM_STATE_TERMINATING})
_AT_REST = frozenset(
    {
        vm_pb2.VM_STATE_HELD,
        vm_pb2.VM_STATE_POWERED_OFF,
        vm_pb2.VM_STATE_SUSPENDED,
        vm_pb2.VM_STATE_STOPPED,
        vm_pb2.VM_STATE_UNDEPLOYED,
    }
)
"""States that a VM leaves only when somebody asks for it."""


class _Waiter:
    """One who waits. A state that is passed through counts as reached."""

    def __init__(self, state: vm_pb2.VmState) -> None:
        self.state = state
        self.woken = asyncio.Event()
        self.reached: bytes | None = None

    def look(self, record: VmRecord, hosts: HostIndex) -> None:
        """The VM has changed, or is looked at for the first time."""
        if self.reached is None and record.view.state == self.state:
            self.reached = record.serialized(hosts)
        self.woken.set()


class Waiting:
    """All who wait at this process."""

    def __init__(self, cloud: CloudIndex, vms: Vms, streams: Streams) -> None:
        self._cloud = cloud
        self._vms = vms
        self._streams = streams
        self._waiters: dict[str, set[_Waiter]] = {}
        self._listening: dict[str, set[asyncio.Event]] = {}
        cloud.vms.on_change(self._changed)

    def _changed(self, record: VmRecord, _: set[str]) -> None:
        for waiter in self._waiters.get(record.key_id, ()):
            waiter.look(record, self._cloud.hosts)
        for changed in self._listening.get(record.key_id, ()):
            changed.set()

    @contextmanager
    def changes_of(self, record: VmRecord) -> Iterator[asyncio.Event]:
        """An event that is set whenever the VM changes."""
        changed = asyncio.Event()
        listening = self._listening.setdefault(record.key_id, set())
        listening.add(changed)
        try:
            yield changed
        finally:
            listening.discard(changed)
            if not listening:
                self._listening.pop(record.key_id, None)

    async def wait(self, vm_id: int, state: vm_pb2.VmState, timeout_s: float, caller: Caller) -> bytes:
        """The VM once it is in the state. Raises NOT_REACHED after the time, STATE_UNREACHABLE at rest elsewhere."""
        record = self._vms.visible(vm_id, caller)
        waiter = _Waiter(state)
        waiter.look(record, self._cloud.hosts)
        with self._waits(record, waiter), self._streams.wakes(waiter.woken):
            try:
                async with asyncio.timeout(timeout_s):
                    return await self._reached(waiter, record)
            except TimeoutError as err:
                raise _not_reached(record, state, timeout_s) from err

    @contextmanager
    def _waits(self, record: VmRecord, waiter: _Waiter) -> Iterator[None]:
        waiters = self._waiters.setdefault(record.key_id, set())
        waiters.add(waiter)
        try:
            yield
        finally:
            waiters.discard(waiter)
            if not waiters:
                self._waiters.pop(record.key_id, None)

    async def _reached(self, waiter: _Waiter, record: VmRecord) -> bytes:
        while waiter.reached is None:
            _check_reachable(record, waiter.state)
            self._streams.check()
            waiter.woken.clear()
            await waiter.woken.wait()
        return waiter.reached


def _check_reachable(record: VmRecord, state: vm_pb2.VmState) -> None:
    now = record.view.state
    if now in _ENDED and state not in _ENDED:
        why = "will not come back"
    elif now in _AT_REST and state not in _ENDED:
        why = "stays so until somebody asks for something else"
    else:
        return
    raise MolnError(
        Reason.STATE_UNREACHABLE,
        f"wait for VM {record.id} ({record.name}) to be {_word(state)}: it is {_word(now)} and {why}",
        metadata={"state": _word(now)},
    )


def _not_reached(record: VmRecord, state: vm_pb2.VmState, timeout_s: float) -> MolnError:
    view = record.view
    why = f": {view.reason}: {view.message}" if view.reason else ""
    return MolnError(
        Reason.NOT_REACHED,
        f"VM {record.id} ({record.name}) is {_word(view.state)}, not {_word(state)}, after {timeout_s:g} s{why}",
        metadata={"state": _word(view.state), "reason": view.reason},
    )


def _word(state: int) -> str:
    return vm_pb2.VmState.Name(state).removeprefix("VM_STATE_")
