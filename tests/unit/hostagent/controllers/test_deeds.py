"""Deeds as tasks: bounded, interruptible, told exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from moln.compute.v1.vm_pb2 import VmStatus
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.runtime import Background
from services.hostagent.drivers.deeds import Deeds
from services.hostagent.drivers.ports import DONE, Deed, Outcome, Work

Told = list[tuple[int, Outcome]]


def a_work(told: Told, vm_id: int = 7, deed: Deed = Deed.START) -> Work:
    return Work(
        deed, 1, vm_id, f"uid-{vm_id}", None, VmStatus(),
        done=lambda work, outcome: told.append((work.vm_id, outcome)), progress=lambda _work, _step, _percent: None,
    )  # fmt: skip


async def until(check: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not check():  # noqa: ASYNC110  the deeds themselves have no event to wait for
            await asyncio.sleep(0)


@asynccontextmanager
async def performer(act: Callable[[Work], Awaitable[Outcome]]) -> AsyncIterator[tuple[Deeds, Told]]:
    async with Background() as background:
        yield Deeds(act, 2, background), []


async def test_the_end_of_a_deed_is_told_but_not_from_within_begin() -> None:
    async def act(_work: Work) -> Outcome:
        return DONE

    async with performer(act) as (deeds, told):
        deeds.begin(a_work(told))
        assert told == []
        await until(lambda: told)
        assert told == [(7, DONE)]


async def test_no_more_than_so_many_run_at_once_but_waiting_for_guests_takes_no_place() -> None:
    running: set[int] = set()
    go_on = asyncio.Event()

    async def act(work: Work) -> Outcome:
        running.add(work.vm_id)
        await go_on.wait()
        return DONE

    async with performer(act) as (deeds, told):
        for vm_id in (1, 2, 3):
            deeds.begin(a_work(told, vm_id))
        deeds.begin(a_work(told, 4, Deed.SHUT_DOWN))
        for vm_id in (5, 6, 7):
            deeds.begin(a_work(told, vm_id, Deed.UPLOAD))
        await until(lambda: {4, 6} <= running)
        assert running == {1, 2, 4, 5, 6}, "files move about in places of their own"
        go_on.set()
        await until(lambda: len(told) == 7)


async def test_an_interrupted_deed_ends_once_and_undisturbed() -> None:
    undone: list[str] = []

    async def act(_work: Work) -> Outcome:
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(5):
                await asyncio.sleep(0)
            undone.append("all")
        return DONE

    async with performer(act) as (deeds, told):
        deeds.begin(a_work(told))
        await asyncio.sleep(0)
        deeds.interrupt(1, 7)
        await asyncio.sleep(0)
        deeds.interrupt(1, 7)
        await until(lambda: told)
        assert undone == ["all"] and [outcome.was_interrupted for _, outcome in told] == [True]


async def test_a_deed_that_was_begun_while_another_was_under_way_is_told_of_like_that_one() -> None:
    go_on = {Deed.MIGRATE: asyncio.Event(), Deed.ERASE: asyncio.Event()}

    async def act(work: Work) -> Outcome:
        await go_on[work.deed].wait()
        return DONE

    async with performer(act) as (deeds, told):
        deeds.begin(a_work(told, deed=Deed.MIGRATE))
        deeds.begin(a_work(told, deed=Deed.ERASE))
        go_on[Deed.MIGRATE].set()
        await until(lambda: told)
        go_on[Deed.ERASE].set()
        await until(lambda: len(told) == 2)


async def test_errors_become_outcomes() -> None:
    async def refuse(_work: Work) -> Outcome:
        raise MolnError(Reason.HYPERVISOR_FAILED, "it does not answer")

    async def fail(_work: Work) -> Outcome:
        raise ValueError("a defect")

    for act, reason in ((refuse, Reason.HYPERVISOR_FAILED), (fail, Reason.INTERNAL)):
        async with performer(act) as (deeds, told):
            deeds.begin(a_work(told))
            await until(lambda told=told: told)  # type: ignore[misc]
            assert told[0][1].reason is reason and not told[0][1].is_done


async def test_closing_interrupts_and_tells_nobody() -> None:
    async def act(_work: Work) -> Outcome:
        await asyncio.Event().wait()
        return DONE

    async with performer(act) as (deeds, told):
        deeds.begin(a_work(told))
        await asyncio.sleep(0)
        await deeds.close()
        await asyncio.sleep(0)
        assert told == []
