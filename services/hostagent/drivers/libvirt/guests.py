"""Domains by uid: small asynchronous calls, each idempotent. Knows neither disks nor orders, and decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from services.common.domain.reasons import Reason
from services.hostagent.drivers.libvirt.connection import (
    Flags,
    GuestMissing,
    HypervisorError,
    HypervisorSilent,
    LibvirtConnection,
    LiveFlags,
    Raw,
    WrongState,
    failure_of,
    or_none,
)
from services.hostagent.drivers.libvirt.live import LiveGuests
from services.hostagent.drivers.libvirt.observe import Observed, end_of, is_arriving, is_saved, power_of
from services.hostagent.drivers.libvirt.spec import DomainSpec, Mark
from services.hostagent.drivers.libvirt.xml import MARK_NAMESPACE, MARK_PREFIX, domain_xml, mark_xml, parse_mark
from services.hostagent.drivers.ports import End, Power

START_SECONDS = 120.0
DESTROY_SECONDS = 30.0
AT_ONCE = 8
REPEAT_BUTTON_S = 5.0
"""The power button is pressed again after this long: a guest that was still booting did not see it."""


class Guests:
    """The domains of one hypervisor that carry moln's mark."""

    def __init__(self, connection: LibvirtConnection) -> None:
        self._connection = connection
        self.live = LiveGuests(connection)
        """The same domains, for what is done while they run."""
        self._marks: dict[str, Mark | None] = {}

    async def start(self, spec: DomainSpec) -> None:
        """Defines the domain as `spec` has it, and starts it; one that runs is left as it is.

        Raises HypervisorError START_FAILED with the hypervisor's words; the definition is gone again then.
        """
        self._marks.pop(spec.uid, None)
        try:
            xml = domain_xml(spec)
        except ValueError as err:
            raise HypervisorError(Reason.START_FAILED, f"the domain cannot be described: {err}") from err
        flags = Flags.DEFINE_VALIDATE if spec.is_validated else 0
        try:
            await self._connection.call(lambda raw: _start(raw, spec.uid, xml, flags), what=f"starting {spec.name}",
                                        seconds=START_SECONDS)  # fmt: skip
        except HypervisorError as err:
            raise HypervisorError(Reason.START_FAILED, err.message) from err

    async def adopt(self, mark: Mark) -> None:
        """Marks a guest that others have defined as this VM's, and starts it where it is off. Idempotent.

        Raises HypervisorError START_FAILED where there is none, or where it is somebody's already. Defines nothing.
        """
        try:
            await self._connection.call(lambda raw: _adopt(raw, mark), what="adopting the guest", seconds=START_SECONDS)
        except HypervisorError as err:
            raise HypervisorError(Reason.START_FAILED, err.message) from err
        finally:
            self._marks.pop(mark.uid, None)

    async def disown(self, uid: str) -> None:
        """Takes moln's mark off a guest that was imported, and no more. Of moln's own, or not there: nothing."""
        await self._on(uid, _disown, "taking the mark off the guest")
        self._marks.pop(uid, None)

    async def shutdown(self, uid: str) -> None:
        """Presses the guest's power button. Not running, or not there: nothing happens."""
        await self._on(uid, _press_button, "shutting the guest down")

    async def shut_down_within(self, uid: str, grace_s: float) -> bool:
        """Presses the power button, now and again, until the guest is off; False where it is not after `grace_s`."""
        try:
            async with asyncio.timeout(grace_s):
                while True:
                    await self.shutdown(uid)
                    if await self._is_off_within(uid, REPEAT_BUTTON_S):
                        return True
        except TimeoutError:
            return await self.power(uid) is not Power.RUNNING

    async def _is_off_within(self, uid: str, seconds: float) -> bool:
        clock = asyncio.get_running_loop()
        end = clock.time() + seconds
        while await self.power(uid) is Power.RUNNING:
            if clock.time() >= end:
                return False
            await asyncio.sleep(0.1)
        return True

    async def destroy(self, uid: str) -> None:
        """Pulls the plug. Not running, or not there: nothing happens."""
        await self._on(uid, _destroy, "pulling the guest's plug", DESTROY_SECONDS)

    async def undefine(self, uid: str) -> None:
        """Removes the definition of a guest that is off. Not there: nothing happens."""
        await self._on(uid, _undefine, "removing the guest's definition")
        self._marks.pop(uid, None)

    async def erase_state(self, spec: DomainSpec) -> None:
        """Removes what the hypervisor itself keeps for a guest that is off and not defined: the state of its TPM."""
        await self._connection.call(lambda raw: _erase_state(raw, spec), what="erasing the guest's TPM")

    async def power(self, uid: str) -> Power:
        """Whether the guest runs; ABSENT where the hypervisor does not know it."""
        try:
            state = await self._connection.call(lambda raw: raw.lookupByUUIDString(uid).state(), what="asking")
        except GuestMissing:
            return Power.ABSENT
        return power_of(state[0])

    async def observe(self, uid: str) -> Observed | None:
        """One guest, or None where there is none of this uid that carries moln's mark."""
        try:
            return await self._connection.call(
                lambda raw: self._observe(raw.lookupByUUIDString(uid)), what="asking for the guest"
            )
        except GuestMissing:
            return None

    async def all(self) -> list[Observed]:
        """All guests that carry moln's mark, of whichever cloud. One that cannot be asked for is UNKNOWN."""
        try:
            return await self._connection.call(self._list, what="listing the guests")
        except HypervisorSilent:  # one of them hangs, or the hypervisor does
            return await self._one_by_one()

    async def _one_by_one(self) -> list[Observed]:
        uids = await self._connection.call(_uids, what="listing the guests")
        found = []
        for start in range(0, len(uids), AT_ONCE):
            found += await asyncio.gather(*(self._observe_or_not(uid) for uid in uids[start : start + AT_ONCE]))
        return [guest for guest in found if guest is not None]

    async def _observe_or_not(self, uid: str) -> Observed | None:
        try:
            return await self.observe(uid)
        except HypervisorError:
            return _unknown(self._marks.get(uid))

    def mark_of(self, domain: Raw, uid: str) -> Mark | None:
        """The mark of a domain, read once; None where it carries none. Runs in a thread of the connection."""
        if uid not in self._marks:
            self._marks[uid] = read_mark(domain)
        return self._marks[uid]

    def _list(self, raw: Raw) -> list[Observed]:
        domains = raw.listAllDomains()
        present = {domain.UUIDString() for domain in domains}
        for uid in self._marks.keys() - present:
            self._marks.pop(uid, None)
        seen = []
        for domain in domains:
            found = failure_of(partial(self._observe, domain))
            if isinstance(found, HypervisorError) and not isinstance(found, GuestMissing):
                found = _unknown(self._marks.get(domain.UUIDString()))
            if isinstance(found, Observed):  # one may go while the list is made
                seen.append(found)
        return seen

    def _observe(self, domain: Raw) -> Observed | None:
        mark = self.mark_of(domain, domain.UUIDString())
        if mark is None:
            return None
        state, reason = domain.state()
        power, end = power_of(state), end_of(state, reason)
        return Observed(mark, domain.name(), power, end, is_saved(state, reason), is_arriving(state, reason))

    async def _on(self, uid: str, work: Callable[[Raw], object], what: str, seconds: float | None = None) -> None:
        try:
            await self._connection.call(lambda raw: work(raw.lookupByUUIDString(uid)), what=what, seconds=seconds)
        except (GuestMissing, WrongState):
            return


def _uids(raw: Raw) -> list[str]:
    return [domain.UUIDString() for domain in raw.listAllDomains()]


def _unknown(mark: Mark | None) -> Observed | None:
    """A guest that was known, and for which the hypervisor does not answer now."""
    if mark is None:
        return None
    return Observed(mark, "", Power.UNKNOWN, End.NONE)


def _start(raw: Raw, uid: str, xml: str, flags: int) -> None:
    before = or_none(lambda: raw.lookupByUUIDString(uid))
    if before is not None and not _is_made_by_moln(before):
        message = f"a guest with this UUID is there, {before.name()}, and is not moln's own: it is left alone"
        raise HypervisorError(Reason.START_FAILED, message)
    if before is not None and before.isActive():
        return
    domain = raw.defineXMLFlags(xml, flags) if flags else raw.defineXML(xml)
    is_started = False
    try:
        domain.create()
        is_started = True
    finally:
        if not is_started:
            or_none(lambda: _undefine(domain))


def _adopt(raw: Raw, mark: Mark) -> None:
    domain = or_none(lambda: raw.lookupByUUIDString(mark.uid))
    if domain is None:
        message = f"the guest {mark.uid} that was imported is not defined on this host any more: define it again, or "
        raise HypervisorError(Reason.START_FAILED, f"{message}terminate the VM")
    before = read_mark(domain)
    if before is not None and not (before.is_imported and before.cloud_uid == mark.cloud_uid):
        message = f"the guest {domain.name()} carries the mark of another cloud or VM: it is left alone"
        raise HypervisorError(Reason.START_FAILED, message)
    if before != mark:
        _set_mark(domain, mark_xml(mark))
    if not domain.isActive():
        domain.create()


def _disown(domain: Raw) -> None:
    mark = read_mark(domain)
    if mark is not None and mark.is_imported:
        _set_mark(domain, None)


def _set_mark(domain: Raw, text: str | None) -> None:
    """In the definition, and in the guest as it runs."""
    where = LiveFlags.CONFIG | (LiveFlags.LIVE if domain.isActive() else 0)
    domain.setMetadata(Flags.METADATA_ELEMENT, text, MARK_PREFIX, MARK_NAMESPACE, where)


def _press_button(domain: Raw) -> None:
    if _is_moln_s(domain):
        domain.shutdown()


def _destroy(domain: Raw) -> None:
    if _is_moln_s(domain):
        domain.destroy()


def _is_moln_s(domain: Raw) -> bool:
    """Whether any cloud of moln made or imported it: what is others' is never touched, whatever its UUID."""
    return read_mark(domain) is not None


def _is_made_by_moln(domain: Raw) -> bool:
    """Whether its definition is moln's too, to be replaced and removed; of an imported guest it is not."""
    mark = read_mark(domain)
    return mark is not None and not mark.is_imported


def _undefine(domain: Raw) -> None:
    """What the guest wrote into firmware and TPM stays. Not every hypervisor knows every flag."""
    if not _is_made_by_moln(domain):
        return
    for flags in (Flags.UNDEFINE_ALL | Flags.KEEP_STATE, Flags.UNDEFINE_ALL | Flags.KEEP_NVRAM, Flags.UNDEFINE_ALL):
        if or_none(partial(domain.undefineFlags, flags)) is not None:
            return
    domain.undefine()  # the hypervisor knows none of them, or has the right error for the caller


def _erase_state(raw: Raw, spec: DomainSpec) -> None:
    before = or_none(lambda: raw.lookupByUUIDString(spec.uid))
    if before is None or _is_made_by_moln(before):
        raw.defineXML(domain_xml(spec)).undefineFlags(Flags.UNDEFINE_ALL | Flags.ERASE_STATE)


def read_mark(domain: Raw) -> Mark | None:
    """The mark that a domain carries, of whichever cloud; None where it carries none that can be read."""
    text = or_none(lambda: domain.metadata(Flags.METADATA_ELEMENT, MARK_NAMESPACE))
    return parse_mark(text) if text else None
