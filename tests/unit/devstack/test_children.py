"""Children of a stack: readiness, restarts, order of the end, and what a killed stack leaves. Real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from services.devstack import cleanup
from services.devstack.children import Child, ChildPlan
from services.devstack.errors import StackError
from services.devstack.layout import Folder
from services.devstack.plans import root_plan
from services.devstack.rooted import write_plans
from services.devstack.supervisor import Supervisor
from tests.support.eventually import eventually
from tests.support.processes import Processes

GOOD = """
import json, os, signal, sys, time
ready = os.environ["MOLN_READY_FILE"]
open(ready + ".new", "w").write(json.dumps({"pid": os.getpid(), "addresses": {"grpc": "here"}}))
os.replace(ready + ".new", ready)
signal.signal(signal.SIGTERM, lambda *_: (print("ended", sys.argv[1], flush=True), sys.exit(0)))
signal.pause()
"""


def plan(folder: Folder, name: str, script: str = GOOD, **settings: object) -> ChildPlan:
    folder.make()
    return ChildPlan(
        name=name, command=(sys.executable, "-c", script, name), log=folder.log_of("all"),
        ready_file=folder.ready_of(name), state_dir=folder.path, **settings,  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.fixture
def stack(folder: Path) -> Folder:
    return Folder(folder / "cloud")


async def test_processes_end_in_the_reverse_order_of_their_start(stack: Folder) -> None:
    async with Supervisor(stack, print) as supervisor:
        assert (await supervisor.start([plan(stack, "first")]))[0] == {"grpc": "here"}
        await supervisor.start([plan(stack, "second")])
    assert stack.log_of("all").read_text().splitlines() == ["ended second", "ended first"]


async def test_a_process_that_was_ready_is_started_again(stack: Folder) -> None:
    said: list[str] = []
    async with Supervisor(stack, said.append) as supervisor:
        await supervisor.start([plan(stack, "one")])
        child = supervisor.children[0]
        former = child.pid
        os.kill(former, signal.SIGKILL)
        await eventually(lambda: child.pid not in (0, former))
    assert child.starts == 2
    assert "one was ended by SIGKILL; it is started again" in said[0]


async def test_a_process_that_cannot_start_ends_the_start_with_its_own_words(stack: Folder) -> None:
    script = "import sys; print('moln one: listen 127.0.0.1:2632: the address is taken', file=sys.stderr); sys.exit(2)"
    async with Supervisor(stack, print) as supervisor:
        with pytest.raises(StackError, match=r"one ended with code 2: .*the address is taken"):
            await supervisor.start([plan(stack, "one", script)])


async def test_a_program_that_is_not_there_is_named(stack: Folder) -> None:
    stack.make()
    missing = ChildPlan("one", ("/nowhere/etcd",), stack.log_of("one"), stack.ready_of("one"), stack.path)
    with pytest.raises(ExceptionGroup) as caught:
        async with Supervisor(stack, print) as supervisor:
            await supervisor.start([missing])
    assert "/nowhere/etcd cannot be started" in str(caught.value.exceptions[0])


async def test_a_process_that_does_not_listen_is_killed(stack: Folder) -> None:
    deaf = GOOD.replace('lambda *_: (print("ended", sys.argv[1], flush=True), sys.exit(0))', "signal.SIG_IGN")
    async with Supervisor(stack, print) as supervisor:
        await supervisor.start([plan(stack, "deaf", deaf, stop_seconds=0.1)])
        pid = supervisor.children[0].pid
    assert not Path(f"/proc/{pid}").exists()


async def test_what_belongs_to_another_user_ends_with_its_input(stack: Folder) -> None:
    script = GOOD.replace("signal.pause()", "sys.stdin.read(); print('input ended', flush=True)")
    async with Supervisor(stack, print) as supervisor:
        await supervisor.start([plan(stack, "root", script, is_ended_by_input=True)])
    assert stack.log_of("all").read_text() == "input ended\n"


async def test_services_of_a_killed_stack_are_found_by_its_folder_and_ended(stack: Folder, running: Processes) -> None:
    stack.make()
    script = "import signal; signal.signal(signal.SIGTERM, lambda *_: exit(0)); print('up', flush=True); signal.pause()"
    config = stack.config / "api.toml"
    running.start([sys.executable, "-c", script, "services.api", "--config", config], name="ours")
    running.start(
        [sys.executable, "-c", script, "services.api", "--config", f"{stack.path}-other/api.toml"], name="other"
    )
    running.start([sys.executable, "-c", script, "vi", config], name="editor")
    await eventually(lambda: all("up" in running.output(name) for name in ("ours", "other", "editor")))
    assert [item.title for item in cleanup.leftovers(stack)] == ["services.api"]
    done = await cleanup.clean(stack)
    assert len(done) == 1
    assert cleanup.leftovers(stack) == []
    await eventually(lambda: len(running.alive()) == 2)


async def test_readiness_can_be_probed(stack: Folder) -> None:
    asked: list[int] = []

    async def probe() -> dict[str, str] | None:
        asked.append(1)
        return {"socket": "there"} if len(asked) > 2 else None

    silent = "import signal; signal.pause()"
    child = Child(plan(stack, "etcd", silent, probe=probe), lambda: None, print)
    async with asyncio.TaskGroup() as group:
        group.create_task(child.run())
        assert await child.ready() == {"socket": "there"}
        await child.stop()


async def test_processes_that_need_root_end_with_the_supervisor_that_asked_for_them(stack: Folder) -> None:
    """As started by sudo, but for sudo itself: no signal reaches them, only the end of their input."""
    file = stack.config / "root.json"
    plans = [[plan(stack, "libvirtd")], [plan(stack, "node")]]
    write_plans(file, plans)
    async with Supervisor(stack, print) as supervisor:
        await supervisor.start([root_plan(stack, file, (sys.executable,))])
    assert stack.log_of("all").read_text().splitlines() == ["ended node", "ended libvirtd"]
    assert cleanup.leftovers(stack) == []
