"""Domains that run, by uid: save and restore, plug and unplug, sizes, snapshots. Small calls that decide nothing.

Every failure is a HypervisorError with the hypervisor's own words; `GuestMissing` and `WrongState` where that is why.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from xml.etree.ElementTree import Element

from services.common.domain.reasons import Reason
from services.hostagent.drivers.libvirt.connection import (
    DomainEvent,
    GuestMissing,
    HypervisorError,
    LibvirtConnection,
    LiveFlags,
    Raw,
    monitor_command,
    or_none,
)
from services.hostagent.drivers.libvirt.observe import power_of
from services.hostagent.drivers.libvirt.xml import parse
from services.hostagent.drivers.ports import Power

T = TypeVar("T")
Percent = Callable[[int], None]
Watch = Callable[[], Coroutine[Any, Any, None]]

LONG_SECONDS = 24 * 3600.0
LONG_CALLS = 8
DEVICE_SECONDS = 30.0
MONITOR_SECONDS = 600.0
LOOK_SECONDS = 0.5
UNPLUG_LOOK_SECONDS = 0.2
_BOTH = LiveFlags.LIVE | LiveFlags.CONFIG


class LiveGuests:
    """The domains of one hypervisor, by their UUID."""

    def __init__(self, connection: LibvirtConnection) -> None:
        self._connection = connection
        self._long = connection.another(LONG_CALLS)

    async def close(self) -> None:
        """Closes what is of its own."""
        await self._long.close()

    async def on(self, uid: str, work: Callable[[Raw], T], what: str, seconds: float | None = None) -> T:
        """`work(domain)` in a thread."""
        return await self._connection.call(lambda raw: work(raw.lookupByUUIDString(uid)), what=what, seconds=seconds)

    async def long(self, uid: str, work: Callable[[Raw], T], what: str, percent: Percent = lambda _percent: None) -> T:
        """The same for work that takes its time. Cancelled, it is aborted, and has ended before this returns."""
        return await self._watched(uid, work, what, partial(self._tell, uid, percent))

    async def _watched(self, uid: str, work: Callable[[Raw], T], what: str, watch: Watch) -> T:
        try:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(watch())
                try:
                    return await self._long.call(
                        lambda raw: work(raw.lookupByUUIDString(uid)), what=what, seconds=LONG_SECONDS,
                        abort=partial(self.abort, uid),
                    )  # fmt: skip
                finally:
                    watching.cancel()
        except BaseExceptionGroup as group_err:
            raise group_err.exceptions[0] from None

    async def _tell(self, uid: str, percent: Percent) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if (done := await self.job_percent(uid)) is not None:
                percent(done)

    async def job_percent(self, uid: str) -> int | None:
        """How far the hypervisor's own work on the guest is; None where there is none."""
        job = await self.job(uid)
        if job is None:
            return None
        total, done = int(job.get("data_total", 0)), int(job.get("data_processed", 0))
        return min(99, done * 100 // total) if total else 0

    async def job(self, uid: str) -> dict[str, int] | None:
        """libvirt's statistics of the job under way on the guest; None where there is none."""
        try:
            found = await self.on(uid, lambda domain: or_none(domain.jobStats), "asking how far it is")
        except HypervisorError:
            return None
        return found if found and found.get("type", LiveFlags.JOB_NONE) != LiveFlags.JOB_NONE else None

    async def job_ends(self, uid: str) -> None:
        """Returns once no job is under way on the guest: one that a former agent has begun goes on by itself."""
        while await self.job(uid) is not None:  # noqa: ASYNC110  the hypervisor has no event for it
            await asyncio.sleep(LOOK_SECONDS)

    async def abort(self, uid: str) -> None:
        """Has the job under way given up; none, or too late: nothing happens."""
        try:
            await self.on(uid, lambda domain: or_none(domain.abortJob), "breaking off")
        except HypervisorError:
            return

    async def state(self, uid: str) -> tuple[int, int]:
        """libvirt's numbers for state and reason; (0, 0) where there is no such domain."""
        try:
            found = await self.on(uid, lambda domain: domain.state(), "asking for the guest")
        except GuestMissing:
            return 0, 0
        return int(found[0]), int(found[1])

    async def runs(self, uid: str) -> bool:
        """Whether the guest's vCPUs exist."""
        state, _reason = await self.state(uid)
        return power_of(state) is Power.RUNNING

    async def describe(self, uid: str) -> Element:
        """The domain as it runs."""
        return parse(await self.on(uid, lambda domain: domain.XMLDesc(LiveFlags.SECURE), "asking what the guest is"))

    # Saving

    async def save(self, uid: str, path: Path, percent: Percent) -> None:
        """Writes the guest's memory; it is off afterwards."""
        await self.long(uid, lambda domain: domain.save(str(path)), "saving the guest's memory", percent)

    async def saved_xml(self, path: Path) -> str | None:
        """The domain whose memory is in a file; None where the file is not one, or not complete."""
        flags = LiveFlags.SAVE_IMAGE_SECURE
        return await self._connection.call(
            lambda raw: or_none(lambda: raw.saveImageGetXMLDesc(str(path), flags)), what="reading the saved memory"
        )

    async def restore(self, path: Path, xml: str | None) -> None:
        """Defines the domain and loads its memory: it stands still. With `xml` None, as it was saved, and it runs."""
        await self._long.call(
            lambda raw: _restore(raw, str(path), xml), what="restoring the guest's memory", seconds=LONG_SECONDS
        )

    async def resume(self, uid: str) -> None:
        """Lets a guest go on that stands still."""
        await self.on(uid, lambda domain: domain.resume(), "letting the guest go on")

    # Migration

    async def migratable(self, uid: str) -> tuple[str, str]:
        """The domain as it runs and as it is defined, as another hypervisor takes it."""
        flags = LiveFlags.SECURE | LiveFlags.MIGRATABLE
        running = await self.on(uid, lambda domain: domain.XMLDesc(flags), "asking what the guest is")
        defined = await self.on(uid, lambda domain: domain.XMLDesc(flags | LiveFlags.INACTIVE), "asking for the guest")
        return str(running), str(defined)

    async def migrate(self, uid: str, uri: str, parameters: dict[str, object], flags: int, watch: Watch) -> None:
        """Hands the guest over to the hypervisor at `uri`; `watch` runs meanwhile. Cancelled, it is aborted."""
        what = "migrating the guest"
        await self._watched(uid, lambda domain: domain.migrateToURI3(uri, parameters, flags), what, watch)

    async def pause(self, uid: str) -> None:
        """The guest stands still; one that is being migrated goes on at the target."""
        await self.on(uid, lambda domain: domain.suspend(), "pausing the guest")

    async def go_on_there(self, uid: str) -> None:
        """The guest goes on at the target, which fetches the rest of its memory as it needs it."""
        await self.on(uid, lambda domain: domain.migrateStartPostCopy(0), "letting the guest go on at the target")

    # Power

    async def reset(self, uid: str) -> None:
        """Presses the reset button."""
        await self.on(uid, lambda domain: domain.reset(0), "resetting the guest")

    async def reboot(self, uid: str, seconds: float) -> bool:
        """Asks the guest to reboot; False where it has not begun anew within the time."""
        begun = asyncio.Event()

        def heard(event: DomainEvent) -> None:
            if event.is_reboot and event.uid == uid:
                begun.set()

        self._connection.listen(heard)
        try:
            await self.on(uid, lambda domain: domain.reboot(0), "asking the guest to reboot")
            async with asyncio.timeout(seconds):
                await begun.wait()
        except TimeoutError:
            return False
        finally:
            self._connection.ignore(heard)
        return True

    # Devices

    async def attach(self, uid: str, xml: str) -> None:
        """Plugs a device in, now and for as long as the domain is defined."""
        await self.on(
            uid, lambda domain: domain.attachDeviceFlags(xml, _BOTH), "plugging the device in", DEVICE_SECONDS
        )

    async def detach(self, uid: str, xml: str, is_there: Callable[[Element], bool], seconds: float) -> bool:
        """Asks the guest to let go of a device; False where it has not within the time, and keeps it."""
        await self.on(
            uid, lambda domain: domain.detachDeviceFlags(xml, LiveFlags.LIVE), "unplugging the device", DEVICE_SECONDS
        )
        try:
            async with asyncio.timeout(seconds):
                while is_there(await self.describe(uid)):  # noqa: ASYNC110  the domain itself is what counts
                    await asyncio.sleep(UNPLUG_LOOK_SECONDS)
        except TimeoutError:
            return False
        await self.on(
            uid, lambda domain: or_none(lambda: domain.detachDeviceFlags(xml, LiveFlags.CONFIG)), "unplugging"
        )
        return True

    async def change(self, uid: str, xml: str) -> None:
        """Changes a device in place: the medium of a drive, also one that the guest has locked."""
        flags = _BOTH | LiveFlags.MODIFY_FORCE
        await self.on(uid, lambda domain: domain.updateDeviceFlags(xml, flags), "changing the device", DEVICE_SECONDS)

    async def resize_disk(self, uid: str, target: str, size_bytes: int) -> None:
        """Makes a disk larger while the guest runs."""
        await self.on(
            uid, lambda domain: domain.blockResize(target, size_bytes, LiveFlags.RESIZE_BYTES), "resizing the disk"
        )

    # Size

    async def set_vcpus(self, uid: str, count: int) -> None:
        """Plugs vCPUs in or out, up to the most that the domain can have."""
        await self.on(uid, lambda domain: _now_and_later(domain.setVcpusFlags, count), "changing the number of vCPUs")

    async def set_memory(self, uid: str, kib: int) -> None:
        """Blows the balloon up or lets it go, up to the most that the domain can have."""
        await self.on(uid, lambda domain: _now_and_later(domain.setMemoryFlags, kib), "changing the memory")

    async def set_shares(self, uid: str, shares: int) -> None:
        """Changes the guest's weight against others."""
        values = {"cpu_shares": shares}
        await self.on(
            uid, lambda domain: domain.setSchedulerParametersFlags(values, LiveFlags.LIVE), "changing the CPU share"
        )

    # Copies of disks

    async def backup(self, uid: str, xml: str, percent: Percent) -> None:
        """Copies disks of a guest that runs, as they are at this moment. Cancelled, it is aborted."""
        await self.on(uid, lambda domain: domain.backupBegin(xml, None, 0), "beginning to copy the disk")
        try:
            while (job := await self.job(uid)) is not None:
                total, rest = int(job.get("disk_total", 0)), int(job.get("disk_remaining", 0))
                percent((total - rest) * 100 // total if total else 0)
                await asyncio.sleep(LOOK_SECONDS)
        except asyncio.CancelledError:
            await self.abort(uid)
            raise
        await self.on(uid, _check_completed, "copying the disk")

    async def abort_backup(self, uid: str, target: Path) -> None:
        """Breaks off a copy into that file, if one is under way."""
        xml = await self.on(uid, lambda domain: or_none(domain.backupGetXMLDesc), "asking for copies under way")
        if xml is not None and str(target) in xml:
            await self.abort(uid)
            await self.job_ends(uid)

    # Snapshots

    async def snapshot(self, uid: str, xml: str, percent: Percent) -> str:
        """Makes a snapshot, and returns what the hypervisor must be told when the guest is to go back to it."""
        return await self.long(uid, lambda domain: _snapshot(domain, xml), "making the snapshot", percent)

    async def snapshot_xml(self, uid: str, name: str) -> str | None:
        """What `snapshot` returns, of one that the hypervisor still knows; None where it knows none of the name."""
        return await self.on(uid, lambda domain: _snapshot_xml(domain, name), "looking for the snapshot")

    async def forget_snapshot(self, uid: str, name: str) -> None:
        """The hypervisor forgets it; what is in the disks stays."""
        await self.on(uid, lambda domain: _forget(domain, name), "forgetting the snapshot")

    async def revert(self, uid: str, name: str, xml: str) -> None:
        """Goes back to a snapshot with memory: the guest runs on from there."""
        await self.long(uid, lambda domain: _revert(domain, name, xml), "going back to the snapshot")

    async def delete_snapshot(self, uid: str, name: str, xml: str) -> None:
        """Deletes a snapshot out of the disks of a guest that runs."""
        await self.long(uid, lambda domain: _delete(domain, name, xml), "deleting the snapshot")

    async def monitor(self, uid: str, name: str, arguments: Mapping[str, object] | None = None) -> Any:
        """What QEMU answers to a command of its monitor. Raises HypervisorError with QEMU's words where it refuses."""
        text = json.dumps({"execute": name, **({"arguments": dict(arguments)} if arguments else {})})
        what = f"asking QEMU for {name}"
        answer = await self.on(uid, lambda domain: monitor_command(domain, text), what, MONITOR_SECONDS)
        found = json.loads(answer)
        if "error" in found:
            raise HypervisorError(Reason.HYPERVISOR_FAILED, f"{what}: {found['error'].get('desc', 'it refuses')}")
        return found.get("return")


def _check_completed(domain: Raw) -> None:
    job = or_none(lambda: domain.jobStats(LiveFlags.JOB_STATS_COMPLETED)) or {}
    if job.get("type") != LiveFlags.JOB_COMPLETED:
        raise HypervisorError(Reason.HYPERVISOR_FAILED, str(job.get("errmsg", "the copy was broken off")))


def _now_and_later(change: Callable[[int, int], object], value: int) -> None:
    """The guest as it runs, and its definition; not every hypervisor takes both at once."""
    change(value, LiveFlags.LIVE)
    or_none(lambda: change(value, LiveFlags.CONFIG))


def _restore(raw: Raw, path: str, xml: str | None) -> None:
    if xml is None:
        raw.restore(path)
        return
    domain = raw.defineXML(xml)
    is_loaded = False
    try:
        raw.restoreFlags(path, xml, LiveFlags.RESTORE_PAUSED)
        is_loaded = True
    finally:
        if not is_loaded:
            or_none(domain.undefine)


def _snapshot(domain: Raw, xml: str) -> str:
    made = domain.snapshotCreateXML(xml, 0)
    found: str = made.getXMLDesc(LiveFlags.SNAPSHOT_SECURE)
    return found


def _snapshot_xml(domain: Raw, name: str) -> str | None:
    found = or_none(lambda: domain.snapshotLookupByName(name))
    return found.getXMLDesc(LiveFlags.SNAPSHOT_SECURE) if found is not None else None


def _forget(domain: Raw, name: str) -> None:
    found = or_none(lambda: domain.snapshotLookupByName(name))
    if found is not None:
        found.delete(LiveFlags.SNAPSHOT_METADATA_ONLY)


def _known(domain: Raw, name: str, xml: str) -> Raw:
    """The snapshot as the hypervisor knows it: told anew where the domain has been defined since."""
    found = or_none(lambda: domain.snapshotLookupByName(name))
    return found if found is not None else domain.snapshotCreateXML(xml, LiveFlags.SNAPSHOT_REDEFINE)


def _revert(domain: Raw, name: str, xml: str) -> None:
    found = _known(domain, name, xml)
    try:
        domain.revertToSnapshot(found, LiveFlags.REVERT_RUNNING | LiveFlags.REVERT_FORCE)
    finally:
        or_none(lambda: _forget(domain, name))


def _delete(domain: Raw, name: str, xml: str) -> None:
    _known(domain, name, xml).delete(0)
