"""Made-up load is consistent: counters grow as told, and a host's do not fall when a guest goes."""

from __future__ import annotations

import pytest

from services.hostagent.drivers.sim.journal import SimGuest
from services.hostagent.drivers.sim.load import SimLoad, cpu_percent

SIZE = (16, 1024, 1000)


def running(vm_id: int, start_s: float = 100.0) -> SimGuest:
    return SimGuest(1, vm_id, f"uid-{vm_id}", is_running=True, start_s=start_s)


def test_a_guests_cpu_time_grows_at_its_own_rate() -> None:
    load = SimLoad(SIZE)
    first, second = (load.sweep(1, [running(9)], now).guests[0] for now in (110.0, 120.0))
    assert first.cpu_ns is not None
    assert second.cpu_ns is not None
    assert (second.cpu_ns - first.cpu_ns) / 1e9 == pytest.approx(10 * cpu_percent(9) / 100)
    assert second.disks[0].read_bytes > first.disks[0].read_bytes


def test_the_host_takes_what_its_guests_take_and_never_less_than_before() -> None:
    load = SimLoad(SIZE)
    load.sweep(1, [running(9), running(10)], 110.0)
    both = load.sweep(1, [running(9), running(10)], 120.0).host.cpu_busy_s
    assert both == pytest.approx(10 * (cpu_percent(9) + cpu_percent(10)) / 100)
    assert both is not None
    assert (load.sweep(1, [], 130.0).host.cpu_busy_s or 0) >= both


def test_a_guest_that_is_off_takes_nothing() -> None:
    guest = SimGuest(1, 9, "uid-9")
    sweep = SimLoad(SIZE).sweep(1, [guest], 110.0)
    assert (sweep.guests[0].is_active, sweep.guests[0].cpu_ns, sweep.host.memory_used) == (False, None, 0)
