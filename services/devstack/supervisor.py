"""The parent of all processes of a stack: starts them in order, keeps them running, ends them in the reverse order."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence

from services.devstack.children import Addresses, Child, ChildPlan
from services.devstack.layout import Folder

Say = Callable[[str], None]


class Supervisor:
    """Runs children in a task group of its own; leaving the context ends all of them."""

    def __init__(self, folder: Folder, say: Say, *, writes_status: bool = True) -> None:
        self._folder = folder
        self._writes_status = writes_status
        self._say = say
        self._tasks = asyncio.TaskGroup()
        self._stages: list[list[Child]] = []

    async def __aenter__(self) -> Supervisor:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        try:
            await self.stop()
        finally:
            await self._tasks.__aexit__(None, None, None)

    @property
    def children(self) -> list[Child]:
        """In the order of their start."""
        return [child for stage in self._stages for child in stage]

    async def start(self, plans: Sequence[ChildPlan]) -> list[Addresses]:
        """Starts some processes together, and waits until all are ready. Raises StackError where one is not."""
        stage = [Child(plan, self._write, self._say) for plan in plans]
        self._stages.append(stage)
        for child in stage:
            self._tasks.create_task(child.run())
        return [await child.ready() for child in stage]

    async def stop(self) -> None:
        """Ends all, those that were started last first."""
        while self._stages:
            stage = self._stages[-1]
            async with asyncio.TaskGroup() as group:
                for child in stage:
                    group.create_task(child.stop())
            self._stages.pop()
        self._write()

    def kill(self) -> None:
        """Ends all at once."""
        for child in self.children:
            child.kill()

    def _write(self) -> None:
        """Tells `moln dev status` how things are."""
        if not self._writes_status:
            return
        fresh = self._folder.processes.with_suffix(".new")
        fresh.write_text(json.dumps([child.describe() for child in self.children], indent=2))
        fresh.replace(self._folder.processes)
