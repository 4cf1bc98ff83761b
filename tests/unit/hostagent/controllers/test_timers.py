"""Many moments on one timer."""

from __future__ import annotations

from services.hostagent.controllers.timers import Timers
from tests.support.eventually import eventually


async def test_callbacks_come_in_the_order_of_their_moments() -> None:
    timers, called = Timers(), list[int]()
    for number, seconds in ((3, 0.03), (1, 0.0), (2, 0.01)):
        timers.after(seconds, lambda number=number: called.append(number))  # type: ignore[misc]
    await eventually(lambda: len(called) == 3)
    assert called == [1, 2, 3] and len(timers) == 0


async def test_a_callback_may_ask_for_another() -> None:
    timers, called = Timers(), list[int]()

    def again() -> None:
        called.append(1)
        if len(called) < 3:
            timers.after(0, again)

    timers.after(0, again)
    await eventually(lambda: len(called) == 3)


async def test_nothing_is_called_after_closing() -> None:
    timers, called = Timers(), list[int]()
    timers.after(0.0, lambda: called.append(1))
    timers.close()
    other = Timers()
    other.after(0.02, lambda: called.append(2))
    await eventually(lambda: called)
    assert called == [2]
