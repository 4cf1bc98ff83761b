"""The load of the host and its guests: one bulk call for all of them, read into values. Decides nothing."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from services.common.domain.reasons import Reason
from services.hostagent.drivers.libvirt.connection import (
    Flags,
    HypervisorError,
    LibvirtConnection,
    Raw,
    is_local,
    or_none,
)
from services.hostagent.drivers.libvirt.inventory import read_cpu_time
from services.hostagent.drivers.libvirt.spec import Mark
from services.hostagent.drivers.stats import DiskStats, GuestStats, HostStats, NicStats, Sweep

SWEEP_SECONDS = 10.0
PATIENCE_S = 0.8
"""So long at least a sweep may take before another one is begun beside it."""
MOST_STUCK = 3
"""So many calls may be left behind before no more are made."""
_KIB = 1024
Record = Mapping[str, Any]
MarkOf = Callable[[Raw, str], Mark | None]


class _Known(NamedTuple):
    """What does not change of a domain."""

    vm_id: int
    uid: str
    name: str


class StatsReader:
    """Sweeps of one hypervisor, on a connection of their own: a guest that hangs costs a moment, once.

    The first call that meets a hung guest waits for it inside the hypervisor, holding that guest's place. It is left
    behind with its connection; a call after it, which waits for nobody, is told of all the others at once.
    """

    def __init__(self, main: LibvirtConnection, mark_of: MarkOf, cloud_uid: str, disk_of: Path) -> None:
        self._main, self._mark_of, self._cloud_uid, self._disk_of = main, mark_of, cloud_uid, disk_of
        self._is_local = is_local(main.uri)
        self._connection = self._connect()
        self._under_way = 0
        self._usual_s = 0.0
        self._known: dict[bytes, _Known] = {}

    async def close(self) -> None:
        """Closes its connection; waits for nobody who is stuck."""
        self._connection.abandon()

    async def sweep(self) -> Sweep:
        """All guests with this cloud's mark. Raises HypervisorError where there is no answer after SWEEP_SECONDS."""
        stuck = self._under_way
        try:
            return await self._call(max(PATIENCE_S, 5 * self._usual_s))
        except HypervisorError:
            if self._under_way <= stuck:  # an answer, and no good one
                raise
        self._connection.abandon()
        self._connection = self._connect()
        return await self._call(SWEEP_SECONDS - PATIENCE_S)

    async def _call(self, seconds: float) -> Sweep:
        what = "asking for the guests' load"
        if self._under_way >= MOST_STUCK:
            message = f"{what}: {self._main.uri} has not answered earlier questions yet"
            raise HypervisorError(Reason.HYPERVISOR_FAILED, message)
        self._under_way += 1
        sweep = await self._connection.call(self._read_counted, what=what, seconds=seconds)
        self._usual_s = sweep.seconds
        return sweep

    def _connect(self) -> LibvirtConnection:
        return self._main.another(0)

    def _read_counted(self, raw: Raw) -> Sweep:
        try:
            return self._read(raw)
        finally:
            self._under_way -= 1

    def _read(self, raw: Raw) -> Sweep:
        began, moment = time.perf_counter(), time.time()
        guests: list[GuestStats] = []
        former, self._known = self._known, {}
        for domain, record in bulk_stats(raw):
            identity = domain.UUID()
            known = former.get(identity) or self._identify(domain)
            if known.vm_id:
                self._known[identity] = known
                guests.append(guest_stats(known.vm_id, known.uid, known.name, record))
        host = self._host(raw)
        return Sweep(moment, time.perf_counter() - began, host, guests)

    def _identify(self, domain: Raw) -> _Known:
        """What moln did not mark for this cloud has no id, and is asked again: it may be marked later."""
        uid = domain.UUIDString()
        mark = self._mark_of(domain, uid)
        is_ours = mark is not None and mark.cloud_uid == self._cloud_uid
        return _Known(mark.vm_id if mark is not None and is_ours else 0, uid, domain.name())

    def _host(self, raw: Raw) -> HostStats:
        _model, memory_mib, cpus = raw.getInfo()[:3]
        memory = or_none(lambda: raw.getMemoryStats(Flags.ALL_CELLS)) or {}
        total = memory.get("total", memory_mib * _KIB)
        idle = memory.get("free", total) + memory.get("buffers", 0) + memory.get("cached", 0)
        cpu = read_cpu_time(raw)
        disk = shutil.disk_usage(self._disk_of) if self._is_local else None
        return HostStats(
            cpus=cpus, cpu_busy_s=cpu.busy_s if cpu is not None else None,
            memory_total=total * _KIB, memory_used=max(0, total - idle) * _KIB,
            disk_total=disk.total if disk else None, disk_used=disk.used if disk else None,
            load1=os.getloadavg()[0] if self._is_local else None,
        )  # fmt: skip


def bulk_stats(raw: Raw) -> list[tuple[Raw, Record]]:
    """One call for all domains. A guest whose monitor is busy or hangs is told of without what only it knows."""
    records: list[tuple[Raw, Record]] = raw.getAllDomainStats(Flags.STATS, Flags.STATS_NOWAIT)
    return records


def guest_stats(vm_id: int, uid: str, domain: str, record: Record) -> GuestStats:
    """libvirt's flat record of a domain as a value. Memory in libvirt's record is in KiB."""
    get = record.get
    state = get("state.state", 0)
    stats = GuestStats(vm_id, uid, domain, state, state in Flags.ACTIVE_STATES, get("cpu.time"), get("vcpu.current"))
    if "balloon.current" in record:
        stats.memory_max, stats.memory_current = _bytes(get("balloon.maximum")), _bytes(get("balloon.current"))
        stats.memory_rss, stats.memory_available = _bytes(get("balloon.rss")), _bytes(get("balloon.available"))
        stats.memory_unused, stats.memory_usable = _bytes(get("balloon.unused")), _bytes(get("balloon.usable"))
    if "block.count" in record:
        stats.disks = _disks(record)
    if "net.count" in record:
        stats.nics = _nics(record)
    return stats


def _disks(record: Record) -> list[DiskStats]:
    """Those that the hypervisor counts; of a guest that is off it tells names only."""
    get, found = record.get, []
    for number in range(record.get("block.count", 0)):
        at = f"block.{number}."
        name = get(f"{at}name")
        if name is None or f"{at}rd.bytes" not in record:
            continue
        found.append(
            DiskStats(
                str(name), get(f"{at}rd.bytes", 0), get(f"{at}rd.reqs", 0), get(f"{at}wr.bytes", 0),
                get(f"{at}wr.reqs", 0), get(f"{at}capacity"), get(f"{at}allocation"),
            )
        )  # fmt: skip
    return found


def _nics(record: Record) -> list[NicStats]:
    get, found = record.get, []
    for number in range(record.get("net.count", 0)):
        at = f"net.{number}."
        name = get(f"{at}name")
        if name is None or f"{at}rx.bytes" not in record:
            continue
        found.append(
            NicStats(
                str(name), get(f"{at}rx.bytes", 0), get(f"{at}rx.pkts", 0), get(f"{at}rx.errs", 0),
                get(f"{at}rx.drop", 0), get(f"{at}tx.bytes", 0), get(f"{at}tx.pkts", 0), get(f"{at}tx.errs", 0),
                get(f"{at}tx.drop", 0),
            )
        )  # fmt: skip
    return found


def _bytes(kib: int | None) -> int | None:
    return None if kib is None else kib * _KIB
