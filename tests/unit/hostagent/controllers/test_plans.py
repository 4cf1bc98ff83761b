"""Plans: every one is run with each step repeated, failing, half-done and interrupted, and leaves what it should."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.hostagent.drivers.plans import Step, run_plan

NAMES = ("stage_disks", "connect_network", "make_context", "start_guest")


@dataclass
class World:
    """What steps make."""

    there: set[str] = field(default_factory=set)
    log: list[str] = field(default_factory=list)


@dataclass
class MakeThing:
    """A step that makes one thing; `fault` says how it goes wrong."""

    name: str
    world: World
    fault: str = ""

    async def needed(self) -> bool:
        return self.name not in self.world.there

    async def do(self) -> None:
        self.world.log.append(f"do {self.name}")
        if self.fault == "refuses":
            raise MolnError(Reason.STAGING_FAILED, "refused")
        self.world.there.add(self.name)
        if self.fault == "half-way":
            raise OSError(28, "No space left on device", "/disk")
        if self.fault == "hangs":
            await asyncio.Event().wait()

    async def verify(self) -> bool:
        return self.fault != "vanishes"

    async def undo(self) -> None:
        self.world.log.append(f"undo {self.name}")
        self.world.there.discard(self.name)
        if self.fault == "sticks":
            raise OSError(16, "Device or resource busy")


def plan(world: World, **faults: str) -> list[Step]:
    return [MakeThing(name, world, faults.get(name, "")) for name in NAMES]


def ignore(_step: str) -> None:
    return


async def test_a_plan_does_its_steps_in_order() -> None:
    world, steps = World(), list[str]()
    assert (await run_plan(plan(world), steps.append)).is_done
    assert steps == list(NAMES) and world.there == set(NAMES)


async def test_a_plan_that_is_repeated_does_nothing_again() -> None:
    world = World()
    await run_plan(plan(world), ignore)
    world.log.clear()
    assert (await run_plan(plan(world), ignore)).is_done
    assert world.log == []


@pytest.mark.parametrize("done", range(len(NAMES)))
async def test_a_plan_is_ended_from_wherever_a_killed_agent_left_it(done: int) -> None:
    world = World(there=set(NAMES[:done]))
    assert (await run_plan(plan(world), ignore)).is_done
    assert world.log == [f"do {name}" for name in NAMES[done:]]


@pytest.mark.parametrize("fault", ["refuses", "half-way", "vanishes"])
@pytest.mark.parametrize("failing", NAMES)
async def test_a_step_that_fails_undoes_the_run_and_is_named(failing: str, fault: str) -> None:
    world = World()
    outcome = await run_plan(plan(world, **{failing: fault}), ignore)
    assert not outcome.is_done and outcome.step == failing and outcome.reason is not None and outcome.message
    assert world.there == set()


@pytest.mark.parametrize("failing", NAMES[1:])
async def test_what_was_there_before_is_not_undone(failing: str) -> None:
    world = World(there={NAMES[0]})
    await run_plan(plan(world, **{failing: "refuses"}), ignore)
    assert world.there == {NAMES[0]}


@pytest.mark.parametrize("hanging", NAMES)
async def test_an_interrupted_plan_undoes_what_it_has_made(hanging: str) -> None:
    world = World()
    task = asyncio.create_task(run_plan(plan(world, **{hanging: "hangs"}), ignore))
    while hanging not in world.there:  # noqa: ASYNC110  the plan has no event to wait for
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.there == set()


async def test_an_error_of_the_system_is_told_in_its_own_words() -> None:
    outcome = await run_plan(plan(World(), stage_disks="half-way"), ignore)
    assert outcome.message == "stage_disks: No space left on device (/disk)"


async def test_what_cannot_be_undone_does_not_keep_the_rest_from_it() -> None:
    world = World()
    await run_plan(plan(world, connect_network="sticks", start_guest="refuses"), ignore)
    assert world.there == set()
