"""libvirt's numbers as words."""

from __future__ import annotations

import libvirt
import pytest

from services.hostagent.drivers.libvirt.observe import end_of, is_arriving, power_of
from services.hostagent.drivers.ports import End, Power

RUNNING, PAUSED, SHUTTING_DOWN, OFF, CRASHED = 1, 3, 4, 5, 6


@pytest.mark.parametrize("state", [RUNNING, PAUSED, SHUTTING_DOWN])
def test_a_guest_whose_vcpus_exist_runs(state: int) -> None:
    assert power_of(state) is Power.RUNNING
    assert end_of(state, 1) is End.NONE


def test_a_state_that_nobody_knows_is_unknown() -> None:
    assert power_of(99) is Power.UNKNOWN


@pytest.mark.parametrize(
    ("reason", "end"),
    [(0, End.NONE), (1, End.SHUT_DOWN), (2, End.VANISHED), (3, End.CRASHED), (6, End.CRASHED)],
)
def test_how_a_guest_ended_is_told_apart(reason: int, end: End) -> None:
    assert power_of(OFF) is Power.OFF
    assert end_of(OFF, reason) is end


def test_a_crashed_guest_is_off() -> None:
    assert (power_of(CRASHED), end_of(CRASHED, 0)) == (Power.OFF, End.CRASHED)


@pytest.mark.parametrize("reason", [libvirt.VIR_DOMAIN_PAUSED_MIGRATION, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP])
def test_what_is_arriving_has_not_run_from_the_first_moment_of_its_process_on(reason: int) -> None:
    assert is_arriving(libvirt.VIR_DOMAIN_PAUSED, reason)


@pytest.mark.parametrize("reason", [libvirt.VIR_DOMAIN_PAUSED_USER, libvirt.VIR_DOMAIN_PAUSED_IOERROR])
def test_a_guest_that_stands_still_for_another_reason_has_run(reason: int) -> None:
    assert not is_arriving(libvirt.VIR_DOMAIN_PAUSED, reason)
