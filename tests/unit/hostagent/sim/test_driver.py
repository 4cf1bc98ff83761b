"""The simulated hypervisors: knobs, labels, ends, consoles, and what a kill leaves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from moln.compute.v1.vm_pb2 import VmStatus
from moln.node.v1.node_service_pb2 import VmOrder
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.hostagent.controllers.timers import Timers
from services.hostagent.drivers.ports import Deed, End, Outcome, Power, Seen, Work
from services.hostagent.drivers.sim.driver import SimDriver
from services.hostagent.drivers.sim.journal import read_state
from services.hostagent.drivers.sim.knobs import Knobs, with_setting
from tests.support.eventually import eventually


class Lab:
    """A driver and what it tells."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "journal"
        self.timers = Timers()
        self.driver = SimDriver(self.file, [1, 2], self.timers, now=time.time, seed=1)
        self.outcomes: list[Outcome] = []
        self.heard: list[Seen] = []
        self.driver.listen(self.heard.append)

    def close(self) -> None:
        self.timers.close()
        self.driver.close()

    async def do(self, deed: Deed, *, vm_id: int = 7, grace_s: float = 0.0, attempt: int = 1, **labels: str) -> Outcome:
        """Does a deed to its end."""
        self.begin(deed, vm_id=vm_id, grace_s=grace_s, attempt=attempt, **labels)
        count = len(self.outcomes)
        await eventually(lambda: len(self.outcomes) > count)
        return self.outcomes[-1]

    def begin(self, deed: Deed, *, vm_id: int = 7, grace_s: float = 0.0, attempt: int = 1, **labels: str) -> None:
        order = VmOrder(host_id=1, vm_id=vm_id, uid=f"uid-{vm_id}", epoch=2)
        order.intent.generation = 3
        order.spec.template.labels.update({f"sim.{name}": value for name, value in labels.items()})
        self.driver.begin(
            Work(
                deed, 1, vm_id, order.uid, order, VmStatus(epoch=2, attempt=attempt),
                done=lambda _work, outcome: self.outcomes.append(outcome), progress=lambda _work, _step, _percent: None,
                grace_s=grace_s,
            )
        )  # fmt: skip

    async def seen(self, vm_id: int = 7) -> Seen | None:
        return next((seen for seen in await self.driver.look(1) if seen.vm_id == vm_id), None)

    def in_file(self, vm_id: int = 7) -> bool | None:
        """Whether the guest runs, as another process would count it."""
        guest = read_state(self.file).guests.get((1, vm_id))
        return guest.is_running if guest is not None else None


@pytest.fixture
async def lab(folder: Path) -> Iterator[Lab]:  # type: ignore[misc]
    made = Lab(folder)
    yield made
    made.close()


async def test_a_start_is_in_the_file_before_it_is_told(lab: Lab) -> None:
    assert (await lab.do(Deed.START)).is_done
    assert lab.in_file() is True
    seen = await lab.seen()
    assert seen is not None and seen.power is Power.RUNNING and seen.status is not None
    assert (seen.status.epoch, seen.status.attempt, seen.status.observed_generation) == (2, 1, 3)


async def test_another_process_finds_what_runs(lab: Lab) -> None:
    await lab.do(Deed.START)
    boot_id = lab.driver.boot_id(1)
    second = SimDriver(lab.file, [1], lab.timers, now=time.time)
    (seen,) = await second.look(1)
    assert seen.power is Power.RUNNING and second.boot_id(1) == boot_id
    second.close()


async def test_a_start_of_what_runs_is_not_counted_twice(lab: Lab) -> None:
    await lab.do(Deed.START)
    await lab.do(Deed.START)
    assert next(iter(lab.driver.guests)).starts == 1


async def test_a_shutdown_leaves_disks_and_an_erase_nothing(lab: Lab) -> None:
    await lab.do(Deed.START)
    await lab.do(Deed.SHUT_DOWN)
    seen = await lab.seen()
    assert seen is not None and seen.power is Power.OFF and lab.in_file() is False
    await lab.do(Deed.ERASE)
    assert await lab.seen() is None and lab.in_file() is None


async def test_deeds_on_what_is_not_there_are_done(lab: Lab) -> None:
    for deed in (Deed.SHUT_DOWN, Deed.PLUG, Deed.HALT, Deed.ERASE):
        assert (await lab.do(deed)).is_done


async def test_a_halted_guest_remembers_who_stopped_it(lab: Lab) -> None:
    await lab.do(Deed.START)
    await lab.do(Deed.HALT)
    assert read_state(lab.file).guests[1, 7].end is End.BY_AGENT


async def test_a_guest_that_ignores_the_button_loses_its_plug(lab: Lab) -> None:
    await lab.do(Deed.START, ignore_acpi="true")
    outcome = await lab.do(Deed.SHUT_DOWN, grace_s=0.01, ignore_acpi="true")
    assert outcome.is_done and outcome.reason is Reason.PLUG_PULLED


async def test_the_first_starts_fail_where_a_label_says_so(lab: Lab) -> None:
    assert (await lab.do(Deed.START, attempt=1, fail_starts="1")).reason is Reason.START_FAILED
    assert lab.in_file() is None
    assert (await lab.do(Deed.START, attempt=2, fail_starts="1")).is_done


async def test_all_starts_fail_at_a_rate_of_one(lab: Lab) -> None:
    lab.driver.knobs = Knobs(start_failure_rate=1.0)
    assert not (await lab.do(Deed.START)).is_done


async def test_a_stalled_start_can_be_interrupted_and_leaves_nothing(lab: Lab) -> None:
    lab.driver.knobs = Knobs(start_stall_rate=1.0, stall_s=3600)
    lab.begin(Deed.START)
    await asyncio.sleep(0)
    assert lab.outcomes == []
    lab.driver.interrupt(1, 7)
    await eventually(lambda: lab.outcomes)
    assert lab.outcomes[0].was_interrupted and lab.in_file() is None


async def test_a_crash_is_told_and_a_guest_that_vanishes_is_not(lab: Lab) -> None:
    await lab.do(Deed.START)
    assert lab.driver.end(1, 7, End.CRASHED)
    assert [(seen.power, seen.end) for seen in lab.heard] == [(Power.OFF, End.CRASHED)]
    await lab.do(Deed.START, attempt=2)
    assert lab.driver.end(1, 7, End.VANISHED) and len(lab.heard) == 1
    assert lab.in_file() is False


async def test_a_label_makes_a_guest_end_by_itself(lab: Lab) -> None:
    await lab.do(Deed.START, shutdown_after_s="0.01")
    await eventually(lambda: lab.heard)
    assert lab.heard[0].end is End.SHUT_DOWN


async def test_a_reboot_ends_the_guests_of_that_host_and_changes_its_boot_id(lab: Lab) -> None:
    await lab.do(Deed.START)
    before = lab.driver.boot_id(1), lab.driver.boot_id(2)
    lab.driver.reboot(1)
    assert lab.driver.boot_id(1) != before[0] and lab.driver.boot_id(2) == before[1]
    assert lab.in_file() is False


async def test_guests_end_at_the_rate_that_the_knob_says(lab: Lab) -> None:
    for vm_id in range(20):
        await lab.do(Deed.START, vm_id=vm_id)
    lab.driver.knobs = Knobs(crash_rate_per_min=60.0)
    await eventually(lambda: len(lab.heard) == 20)


async def test_a_console_greets_and_echoes(lab: Lab) -> None:
    await lab.do(Deed.START)
    console = await lab.driver.open_console(1, "uid-7")
    await console.write(b"hello")
    await console.close()
    said = b"".join([data async for data in console.output()])
    assert b"uid-7" in said and said.endswith(b"hello")
    assert await lab.driver.console_log(1, "uid-7", 7) == b"login: "


async def test_a_guest_that_is_off_has_no_console(lab: Lab) -> None:
    with pytest.raises(MolnError, match="does not run") as caught:
        await lab.driver.open_console(1, "uid-7")
    assert caught.value.reason is Reason.STATE_FORBIDS


def test_knobs_are_set_by_name_and_a_wrong_one_is_named() -> None:
    assert with_setting(Knobs(), "start_latency_s", "0.5").start_latency_s == 0.5
    assert with_setting(Knobs(), "ignore_acpi", "true").ignore_acpi
    with pytest.raises(ValueError, match="no knob 'speed'"):
        with_setting(Knobs(), "speed", "1")
    with pytest.raises(ValueError, match="negative"):
        with_setting(Knobs(), "stall_s", "-1")
