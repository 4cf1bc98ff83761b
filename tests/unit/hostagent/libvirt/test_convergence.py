"""A migration that does not converge: told by passes, memory and bandwidth, never in the first pass."""

from __future__ import annotations

from services.hostagent.drivers.libvirt.convergence import MIB, Convergence, percent_of


def job(iteration: int, *, bps: int = 0) -> dict[str, int]:
    return {"memory_iteration": iteration, "memory_total": 100 * MIB, "memory_bps": bps}


def test_the_first_pass_takes_as_long_as_it_takes() -> None:
    assert not Convergence(1.0).is_stalled(job(1), 1e9)
    assert not Convergence(1.0).is_stalled({}, 1e9)


def test_what_is_allowed_grows_with_memory_and_shrinks_with_bandwidth() -> None:
    limited, free = Convergence(30.0, 10), Convergence(30.0)
    assert limited.allowed_s(job(2)) == 30 + 2 * 10
    assert free.allowed_s(job(2, bps=100 * MIB)) == 30 + 2
    assert free.allowed_s(job(2)) == 30 + 2 * 100, "nothing measured yet: the slowest"


def test_time_counts_from_the_second_pass_on() -> None:
    watched = Convergence(30.0, 10)
    assert not watched.is_stalled(job(2), 1000.0)
    assert not watched.is_stalled(job(5), 1050.0)
    assert watched.is_stalled(job(9), 1050.1)


def test_a_part_of_it_is_told_and_never_all() -> None:
    assert percent_of({}) == 0
    assert percent_of({"data_total": 200, "data_remaining": 50}) == 75
    assert percent_of({"data_total": 200, "data_remaining": 0}) == 99
