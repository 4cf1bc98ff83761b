"""Several things at once, until the first of them ends: the parts of a stream, both ways of a console."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def until_one_ends(*parts: Coroutine[Any, Any, None], expected: tuple[type[Exception], ...] = ()) -> None:
    """Runs all until one ends; then ends the others, and raises what the one raised.

    Errors of the `expected` types are kept from the TaskGroup: cancelling a stream makes its parts fail in their own
    ways, and the group would then tell of those failures and forget that it was cancelled. Others come as a group.
    """
    ended = asyncio.Event()
    failures: list[Exception] = []

    async def run(part: Coroutine[Any, Any, None]) -> None:
        try:
            await part
        except expected as err:
            failures.append(err)
        finally:
            ended.set()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run(part)) for part in parts]
        try:
            await ended.wait()
        finally:
            for task in tasks:
                task.cancel()
    if failures:
        raise failures[0]
