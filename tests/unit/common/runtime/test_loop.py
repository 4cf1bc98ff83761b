"""The loop runner, background tasks and the manual clock."""

from __future__ import annotations

import asyncio
import io
import json

import pytest

from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.obs.logs import configure_logs
from services.common.obs.loops import LoopCounts
from services.common.obs.metrics import Metrics
from services.common.runtime import Background, Backoff, Loop, ManualClock
from tests.support.eventually import eventually


class Steps:
    """A step that counts its calls and does what it is told."""

    def __init__(self) -> None:
        self.count = 0
        self.error: Exception | None = None
        self.again: float | None = None

    async def __call__(self) -> float | None:
        self.count += 1
        if self.error is not None:
            raise self.error
        return self.again


async def test_a_loop_steps_at_once_and_when_woken() -> None:
    steps = Steps()
    loop = Loop("test", steps, interval=3600)
    async with Background() as background:
        background.start(loop.run(), name="loop")
        await eventually(lambda: steps.count == 1)
        loop.wake()
        await eventually(lambda: steps.count == 2)


async def test_wakes_during_a_step_lead_to_one_more() -> None:
    gate, started = asyncio.Event(), asyncio.Event()
    calls: list[int] = []

    async def step() -> None:
        calls.append(1)
        started.set()
        await gate.wait()

    loop = Loop("test", step, interval=3600)
    async with Background() as background:
        background.start(loop.run(), name="loop")
        await started.wait()
        loop.wake()
        loop.wake()
        gate.set()
        await eventually(lambda: len(calls) == 2)
        for _ in range(20):
            await asyncio.sleep(0)
    assert len(calls) == 2


async def test_a_step_may_ask_to_be_called_sooner() -> None:
    steps = Steps()
    steps.again = 0.0
    async with Background() as background:
        background.start(Loop("test", steps, interval=3600).run(), name="loop")
        await eventually(lambda: steps.count > 3)


async def test_a_failing_step_is_logged_counted_and_tried_again() -> None:
    stream = io.StringIO()
    configure_logs("test", form="json", stream=stream)
    metrics = Metrics("test")
    steps = Steps()
    steps.error = MolnError(Reason.STORE_UNAVAILABLE, "no store")
    loop = Loop("test", steps, interval=3600, backoff=Backoff(first=0.001, most=0.001), metrics=LoopCounts(metrics))
    async with Background() as background:
        background.start(loop.run(), name="loop")
        await eventually(lambda: loop.failures >= 3)
        steps.error = None
        await eventually(lambda: loop.failures == 0)
    first = json.loads(stream.getvalue().splitlines()[0])
    assert first["reason"] == "STORE_UNAVAILABLE"
    assert "exception" not in first
    assert (metrics.registry.get_sample_value("moln_test_loop_failures_total", {"loop": "test"}) or 0) >= 3
    configure_logs("test")


async def test_a_fatal_error_ends_the_loop() -> None:
    steps = Steps()
    steps.error = KeyError("gone")
    with pytest.raises(KeyError):
        await Loop("test", steps, interval=1, fatal=(KeyError,)).run()


def test_pauses_grow_to_their_bound() -> None:
    backoff = Backoff(first=1, most=10)
    pauses = [backoff.pause(failures) for failures in (1, 2, 3, 10, 1000)]
    for pause, full in zip(pauses, (1, 2, 4, 10, 10), strict=True):
        assert 0.75 * full <= pause <= full


async def test_leaving_the_block_cancels_what_runs_in_it() -> None:
    ended = asyncio.Event()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with Background() as background:
        background.start(forever(), name="forever")
        await asyncio.sleep(0)
    assert ended.is_set()


async def test_a_task_that_fails_ends_the_block() -> None:
    async def fails() -> None:
        raise ValueError("broken")

    with pytest.raises(ExceptionGroup) as caught:
        async with Background() as background:
            background.start(fails(), name="fails")
            await asyncio.Event().wait()
    assert caught.group_contains(ValueError, match="broken")


async def test_a_manual_clock_wakes_sleepers_in_order_and_at_their_time() -> None:
    clock = ManualClock()
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((name, clock.monotonic()))

    async with asyncio.TaskGroup() as group:
        group.create_task(sleeper("late", 5))
        group.create_task(sleeper("early", 2))
        await eventually(lambda: clock.sleepers == 2)
        await clock.advance(10)
    assert woken == [("early", 2), ("late", 5)]
    assert clock.monotonic() == 10
