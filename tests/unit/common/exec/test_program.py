"""Programs within limits: what they see, what stops them, and what is said about it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
import uvloop

from services.common.exec import CommandError, Limits, run_program
from tests.support.eventually import eventually


async def test_a_program_gets_its_input_and_gives_its_output() -> None:
    completed = await run_program(["cat"], input=b"hello\n" * 50_000)
    assert completed.output == b"hello\n" * 50_000


async def test_an_argument_is_never_a_command() -> None:
    completed = await run_program(["echo", "$(id); `id` | id > /x"])
    assert completed.text == "$(id); `id` | id > /x\n"


async def test_the_environment_is_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOLN_SECRET", "hunter2")
    completed = await run_program(["env"], variables={"WANTED": "yes"})
    names = {line.split("=")[0] for line in completed.text.splitlines()}
    assert {"PATH", "LANG", "WANTED"} <= names <= {"PATH", "LANG", "WANTED", "HOME", "TMPDIR"}


async def test_a_failure_names_the_program_and_its_last_word() -> None:
    with pytest.raises(CommandError, match=r"^cat failed \(exit status 1\): .*No such file") as caught:
        await run_program(["cat", "/nowhere"])
    assert caught.value.completed is not None
    assert (await run_program(["false"], check=False)).status == 1


async def test_a_program_that_is_missing_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.common.exec.program.SYSTEM_FOLDERS", ())
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(CommandError, match="qemu-img is not installed: apt-get install qemu-utils"):
        await run_program(["qemu-img", "info"])


async def test_a_folder_that_is_missing_is_named() -> None:
    with pytest.raises(CommandError, match="true could not be started: No such file"):
        await run_program(["true"], folder=Path("/nowhere"))


async def test_a_program_that_hangs_is_stopped_with_its_children(folder: Path) -> None:
    script = f"import os, time; os.fork(); open('{folder}/' + str(os.getpid()), 'w').close(); time.sleep(600)"
    with pytest.raises(CommandError, match="did not end within 1 s and was stopped"):
        await run_program([sys.executable, "-c", script], limits=Limits(seconds=1))
    pids = [int(path.name) for path in folder.iterdir()]
    await eventually(lambda: not any(is_running(pid) for pid in pids))


async def test_a_program_that_is_cancelled_is_stopped(folder: Path) -> None:
    script = f"import os, time; open('{folder}/' + str(os.getpid()), 'w').close(); time.sleep(600)"
    task = asyncio.create_task(run_program([sys.executable, "-c", script]))
    await eventually(lambda: list(folder.iterdir()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (pid,) = [int(path.name) for path in folder.iterdir()]
    assert not is_running(pid)


async def test_output_is_bounded() -> None:
    with pytest.raises(CommandError, match="yes wrote more than 1000 bytes and was stopped"):
        await run_program(["yes"], limits=Limits(output_bytes=1000))
    burst = [sys.executable, "-c", "import os; [os.write(1, bytes(1 << 20)) for _ in range(64)]"]
    with pytest.raises(CommandError, match="wrote more than 1000 bytes and was stopped"):
        await run_program(burst, limits=Limits(output_bytes=1000))


async def test_memory_and_cpu_are_bounded() -> None:
    hungry = [sys.executable, "-c", "bytearray(1 << 32)"]
    with pytest.raises(CommandError, match=r"failed \(exit status 1\): MemoryError"):
        await run_program(hungry, limits=Limits(memory_bytes=1 << 30))
    busy = [sys.executable, "-c", "while True: pass"]
    with pytest.raises(CommandError, match="killed by signal"):
        await run_program(busy, limits=Limits(cpu_seconds=1))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in {"Z", "X"}
    except OSError:
        return False


async def test_it_works_on_uvloop() -> None:
    def run() -> bytes:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(run_program(["cat"], input=b"x")).output

    assert await asyncio.to_thread(run) == b"x"
