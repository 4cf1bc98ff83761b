"""`python -m services.devstack.rooted FILE`: what sudo starts. Runs the processes of the real node as root.

No signal of its user's reaches it, so it ends when its standard input does: when the supervisor closes it, or is gone.
The file is written by the user who typed sudo's password; it says what to run.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from services.common.runtime.process import announce_ready
from services.devstack.children import ChildPlan
from services.devstack.errors import FAILED, StackError
from services.devstack.layout import Folder
from services.devstack.supervisor import Supervisor

_KEPT = ("name", "command", "log", "ready_file", "state_dir", "environment", "stop_seconds")


def write_plans(file: Path, stages: Sequence[Sequence[ChildPlan]]) -> None:
    """Writes down what is to be run, in stages."""
    document = [[_document(plan) for plan in stage] for stage in stages]
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        json.dump(document, out, indent=1)


def read_plans(file: Path) -> list[list[ChildPlan]]:
    """Reads it again."""
    document = json.loads(file.read_text())
    return [[_plan(entry) for entry in stage] for stage in document]


def _document(plan: ChildPlan) -> dict[str, Any]:
    values = {name: getattr(plan, name) for name in _KEPT}
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def _plan(entry: dict[str, Any]) -> ChildPlan:
    return ChildPlan(
        name=entry["name"],
        command=tuple(entry["command"]),
        log=Path(entry["log"]),
        ready_file=Path(entry["ready_file"]),
        state_dir=Path(entry["state_dir"]),
        environment=entry["environment"],
        stop_seconds=entry["stop_seconds"],
    )


async def run(file: Path) -> None:
    """Starts the stages, says that they are ready, and ends them when standard input ends."""
    stages = read_plans(file)
    folder = Folder(stages[0][0].state_dir)
    async with Supervisor(folder, lambda text: print(text, flush=True), writes_status=False) as supervisor:
        for stage in stages:
            await supervisor.start(stage)
        announce_ready(os.environ | _ready_variable(folder), {})
        await asyncio.to_thread(_until_input_ends)


def _ready_variable(folder: Folder) -> dict[str, str]:
    """sudo hands on no variables of ours."""
    return {"MOLN_READY_FILE": str(folder.ready_of("root"))}


def _until_input_ends() -> None:
    while os.read(0, 4096):
        pass


def main() -> int:
    """Exit 0 after an ordered end, 1 with one line otherwise. ^C is for the supervisor, which then ends our input."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        asyncio.run(run(Path(sys.argv[1])))
    except StackError as err:
        print(err, file=sys.stderr)
        return FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
