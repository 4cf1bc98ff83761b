"""A hypervisor that hangs, and one guest that does: calls end in time, others go on, and it heals without a command."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.common.domain.errors import MolnError
from services.devstack.libvirtd import LibvirtdFolder
from services.hostagent.drivers.libvirt.connection import MOST_HANGING, HypervisorSilent, LibvirtConnection, Raw
from services.hostagent.drivers.libvirt.driver import LibvirtDriver
from services.hostagent.drivers.libvirt.parting import part
from services.hostagent.drivers.ports import Deed, Power
from tests.support.deeds import Doer
from tests.support.eventually import eventually
from tests.support.hypervisor import order

URI = "test:///default"


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What a call waits for that hangs; opened at the end in any case."""
    opened = threading.Event()
    yield opened
    opened.set()


async def test_a_call_that_hangs_ends_in_time_and_holds_up_nobody(gate: threading.Event) -> None:
    connection = LibvirtConnection(URI, workers=1, call_seconds=0.2)
    with pytest.raises(HypervisorSilent, match="did not answer within"):
        await connection.call(lambda _raw: gate.wait(), what="hanging")
    began = time.monotonic()
    assert await connection.call(lambda raw: raw.getType(), what="asking", seconds=30) == "TEST"
    assert time.monotonic() - began < 20, "the only thread of the first connection hangs still"
    gate.set()
    await eventually(lambda: not connection._hanging, what="what hung is closed")
    await connection.close()


async def test_only_so_many_are_left_to_hang_and_it_heals_by_itself(gate: threading.Event) -> None:
    connection = LibvirtConnection(URI, workers=1, call_seconds=0.05)
    for _ in range(MOST_HANGING):
        with pytest.raises(HypervisorSilent):
            await connection.call(lambda _raw: gate.wait(), what="hanging")
    with pytest.raises(HypervisorSilent, match="does not answer what it was asked"):
        await connection.call(lambda raw: raw.getType(), what="asking", seconds=30)
    gate.set()

    async def answers() -> bool:
        try:
            return bool(await connection.call(lambda raw: raw.getType(), what="asking", seconds=30))
        except MolnError:
            return False

    await eventually(answers, what="calls are taken again")
    await connection.close()


async def test_once_patience_is_lost_nobody_waits_and_nothing_more_is_asked(gate: threading.Event) -> None:
    connection = LibvirtConnection(URI, workers=1)
    long = connection.another(1)

    def hanging(on: LibvirtConnection, seconds: float) -> asyncio.Future[bool]:
        return asyncio.ensure_future(on.call(lambda _raw: gate.wait(), what="hanging", seconds=seconds))

    waiting, undone = [hanging(connection, 3600), hanging(long, 3600)], hanging(long, 3600)
    await eventually(lambda: connection._line.under_way == 1 and long._line.under_way == 2)
    undone.cancel()
    began = time.monotonic()
    connection.patience.lose()
    for each in waiting:
        with pytest.raises(HypervisorSilent):
            await each
    with pytest.raises(asyncio.CancelledError):
        await undone
    with pytest.raises(HypervisorSilent, match="does not answer what it was asked"):
        await long.call(lambda raw: raw.getType(), what="asking")
    await connection.close()
    assert time.monotonic() - began < 5, "the calls would have been waited for an hour"


async def test_an_end_leaves_a_hypervisor_that_answers_its_time(gate: threading.Event) -> None:
    connection = LibvirtConnection(URI, workers=1)
    waiting = asyncio.ensure_future(connection.call(lambda _raw: gate.wait(), what="taking its time"))

    async def at_once() -> None:
        return

    await part(connection, at_once)
    assert not connection.patience.is_lost
    gate.set()
    assert await waiting
    await connection.close()


async def test_one_guest_that_cannot_be_asked_for_is_unknown_and_the_others_are_seen(
    driver: LibvirtDriver, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    doer = Doer(driver)
    well, poison = order(None, vm_id=8), order(None, vm_id=9)
    for vm in (well, poison):
        vm.spec.template.memory_mib = 32
        assert (await doer.do(Deed.START, vm)).is_done
    guests = driver._guests
    driver._connection._call_seconds = 1.0
    observe = guests._observe

    def hangs(domain: Raw) -> object:
        if domain.UUIDString() == poison.uid:
            gate.wait(20)
        return observe(domain)

    monkeypatch.setattr(guests, "_observe", hangs)
    found = {seen.uid: seen.power for seen in await driver.look(1)}
    assert found == {well.uid: Power.RUNNING, poison.uid: Power.UNKNOWN}
    gate.set()
    monkeypatch.undo()
    found = {seen.uid: seen.power for seen in await driver.look(1)}
    assert found == {well.uid: Power.RUNNING, poison.uid: Power.RUNNING}


async def test_a_libvirtd_that_stands_still_is_told_of_in_time_and_its_guests_are_seen_when_it_goes_on(
    driver: LibvirtDriver, folder: Path
) -> None:
    doer, vm = Doer(driver), order(None)
    vm.spec.template.memory_mib = 32
    assert (await doer.do(Deed.START, vm)).is_done
    driver._connection._call_seconds = 1.0
    pid = int(LibvirtdFolder((folder / "libvirtd").resolve()).pid_file.read_text())
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(MolnError, match="did not answer|does not answer|cannot connect"):
            await driver.look(1)
        assert time.monotonic() - began < 30
    finally:
        os.kill(pid, signal.SIGCONT)
    driver._connection._call_seconds = 10.0

    async def seen() -> bool:
        try:
            return [found.power for found in await driver.look(1)] == [Power.RUNNING]
        except MolnError:
            return False

    await eventually(seen, what="the guest is seen again", within=60)
