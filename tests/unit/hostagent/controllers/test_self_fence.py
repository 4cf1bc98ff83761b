"""The watchdog is armed by the first acknowledgement, fed by each, and stopped only when nothing runs any more."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.hostagent.controllers.self_fence import IDLE_S, RETRY_S, SelfFence
from services.hostagent.core.feeding import Feeding
from services.hostagent.watchdog.device import KernelWatchdog, StandInWatchdog, WatchdogError


class Bench:
    """A fence with a stand-in that can be read, and a clock that is moved."""

    def __init__(self, folder: Path) -> None:
        self.now = 1000.0
        self.changes = 0
        self.file = folder / "watchdog"
        self.fence = SelfFence(StandInWatchdog(self.file), Feeding(40, 20), self._changed, now=lambda: self.now)

    def _changed(self) -> None:
        self.changes += 1

    @property
    def fed(self) -> bytes:
        """What the device got."""
        return self.file.read_bytes() if self.file.exists() else b""


@pytest.fixture
def bench(folder: Path) -> Bench:
    return Bench(folder)


async def test_nothing_is_armed_before_the_cloud_has_answered(bench: Bench) -> None:
    assert await bench.fence.step() == IDLE_S
    assert (bench.fence.promise_s, bench.fed) == (0, b"")


async def test_the_promise_is_made_once_it_is_armed(bench: Bench) -> None:
    bench.fence.acknowledged(999.0)
    assert await bench.fence.step() == 1.0
    assert (bench.fence.promise_s, bench.changes, bench.fed) == (40, 1, b"1")
    await bench.fence.step()
    assert bench.fed == b"11"


async def test_an_acknowledgement_of_long_ago_does_not_arm_it(bench: Bench) -> None:
    bench.fence.acknowledged(979.0)
    await bench.fence.step()
    assert (bench.fence.promise_s, bench.fed) == (0, b"")


async def test_it_is_not_fed_on_without_acknowledgements(bench: Bench) -> None:
    bench.fence.acknowledged(1000.0)
    await bench.fence.step()
    bench.now = 1020.5
    await bench.fence.step()
    assert bench.fed == b"1"
    bench.fence.acknowledged(1019.0)
    bench.fence.acknowledged(1002.0)  # an older one that comes later takes nothing back
    await bench.fence.step()
    assert bench.fed == b"11"


async def test_an_orderly_stop_stops_it_only_where_no_guest_runs(bench: Bench, folder: Path) -> None:
    bench.fence.acknowledged(1000.0)
    await bench.fence.step()
    bench.fence.close(has_guests=True)
    assert (bench.fed, bench.fence.promise_s) == (b"1", 0)
    other = Bench(folder)
    other.fence.acknowledged(1000.0)
    await other.fence.step()
    other.fence.close(has_guests=False)
    assert other.fed == b"11V"


async def test_a_device_that_cannot_be_used_is_told_once_and_tried_again(folder: Path) -> None:
    now = [0.0]
    changes: list[int] = []
    device = KernelWatchdog(folder / "nowhere", 20)
    fence = SelfFence(device, Feeding(40, 20), lambda: changes.append(1), now=lambda: now[0])
    for _ in range(3):
        fence.acknowledged(now[0])
        assert await fence.step() == RETRY_S
        now[0] += RETRY_S
    assert "cannot be opened" in fence.problem
    assert (fence.promise_s, changes) == (0, [1])


def test_a_real_host_takes_no_plain_file_for_a_watchdog(folder: Path) -> None:
    (folder / "file").touch()
    with pytest.raises(WatchdogError, match="it is no device"):
        KernelWatchdog(folder / "file", 20).arm()


def test_a_device_that_is_no_watchdog_is_refused() -> None:
    with pytest.raises(WatchdogError, match="/dev/null"):
        KernelWatchdog(Path("/dev/null"), 20).arm()


def test_a_simulated_host_takes_no_device() -> None:
    leader, follower = os.openpty()
    try:
        with pytest.raises(WatchdogError, match="would reset this machine"):
            StandInWatchdog(Path(os.ttyname(follower))).arm()
    finally:
        os.close(leader)
        os.close(follower)
