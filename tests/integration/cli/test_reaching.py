"""Which cloud the command speaks to, completion from it, and how fast it is there. Real processes where it matters."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from moln.compute.v1.vm_pb2 import Vm, VmSpec
from moln.compute.v1.vm_service_pb2 import ListVmsResponse
from moln.operations.v1.operations_service_pb2 import CloudStatus
from services.cli.main import run
from services.cli.session import Session
from services.common import stacks
from services.common.stacks import StackRecord, process_start_ticks
from tests.support.api import CannedApi, serving

MOLN = [sys.executable, "-m", "services.cli"]


def stack(folder: Path, environment: dict[str, str], name: str, port: int = 1, pid: int = 0) -> StackRecord:
    state = folder / name
    state.mkdir()
    (state / "token").write_text("t0k\n")
    record = StackRecord(
        name=name, state_dir=str(state), endpoint=f"127.0.0.1:{port}", token_file=str(state / "token"),
        pid=pid, start_ticks=process_start_ticks(pid), start_time="2026-11-23T12:00:00Z", is_ready=True,
    )  # fmt: skip
    stacks.save(record, environment)
    return record


@pytest.fixture
def environment(folder: Path) -> dict[str, str]:
    return {"XDG_STATE_HOME": str(folder / "xdg-state"), "XDG_CACHE_HOME": str(folder / "cache")}


def test_without_any_cloud_the_line_says_how_to_get_one(
    folder: Path, environment: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["status"], Session(environment, folder)) == 6
    assert "moln dev up --detach" in capfd.readouterr().err


def test_the_only_running_stack_is_taken(
    folder: Path, environment: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(CannedApi({"GetStatus": CloudStatus(version="0.1.0")})) as api:
        stack(folder, environment, "up", api.port, pid=os.getpid())
        stack(folder, environment, "stopped")
        assert run(["status"], Session(environment, folder)) == 0
        assert api.asked[0].metadata["authorization"] == "Bearer t0k"
    assert "up at 127.0.0.1" in capfd.readouterr().out


def test_of_two_running_stacks_one_must_be_chosen(
    folder: Path, environment: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(CannedApi({"GetStatus": CloudStatus(version="0.1.0")})) as api:
        for name in ("one", "two"):
            stack(folder, environment, name, api.port, pid=os.getpid())
        assert run(["status"], Session(environment, folder)) == 2
        shown = capfd.readouterr().err
        assert str(folder / "one") in shown
        assert str(folder / "two") in shown
        assert run(["status", "--cloud", "two"], Session(environment, folder)) == 0
        assert run(["--cloud", str(folder / "one"), "status"], Session(environment, folder)) == 0
        assert run(["status"], Session({**environment, "MOLN_CLOUD": "one"}, folder)) == 0


def test_a_stopped_stack_is_named_with_the_way_to_start_it(
    folder: Path, environment: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    stack(folder, environment, "mine")
    assert run(["--cloud", "mine", "status"], Session(environment, folder)) == 6
    assert f"moln dev up --detach --state {folder}/mine" in capfd.readouterr().err


def test_an_unknown_cloud_exits_4(folder: Path, environment: dict[str, str]) -> None:
    assert run(["--cloud", "nowhere", "status"], Session(environment, folder)) == 4


def test_a_cloud_that_does_not_answer_exits_6(
    folder: Path, environment: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    away = {**environment, "MOLN_ENDPOINT": "127.0.0.1:1", "MOLN_TOKEN": "t0k"}
    assert run(["status"], Session(away, folder)) == 6
    assert "127.0.0.1:1 does not answer" in capfd.readouterr().err


def test_a_supervised_cloud_that_is_just_started_again_is_waited_for(
    folder: Path, environment: dict[str, str], free_port: Callable[[], int]
) -> None:
    port = free_port()
    stack(folder, environment, "restarting", port, pid=os.getpid())
    api = CannedApi({"GetStatus": CloudStatus(version="0.1.0")}, port=port)
    with serving(api, delay_seconds=0.3):
        assert run(["status"], Session(environment, folder)) == 0


def test_a_token_is_not_sent_to_another_machine_in_clear(
    folder: Path, environment: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    away = {**environment, "MOLN_ENDPOINT": "10.0.0.1:2632", "MOLN_TOKEN": "t0k"}
    assert run(["status"], Session(away, folder)) == 2
    assert "MOLN_CA_FILE" in capfd.readouterr().err


def complete(environment: dict[str, str], words: str, index: int, shell: str = "bash") -> list[str]:
    """What the shell would offer."""
    variables = {**os.environ, **environment, "COMP_WORDS": words, "COMP_CWORD": str(index)}
    done = subprocess.run(
        MOLN, env={**variables, "_MOLN_COMPLETE": f"{shell}_complete"}, capture_output=True, text=True, check=False
    )
    return done.stdout.split()


def test_names_and_ids_are_completed_from_the_cloud(folder: Path, environment: dict[str, str]) -> None:
    vms = [Vm(id=7, spec=VmSpec(name="web")), Vm(id=12, spec=VmSpec(name="worker"))]
    with serving(CannedApi({"ListVms": ListVmsResponse(vms=vms)})) as api:
        reach = {**environment, "MOLN_ENDPOINT": f"127.0.0.1:{api.port}", "MOLN_TOKEN": "t0k"}
        assert complete(reach, "moln vm show w", 3) == ["plain,web", "plain,worker"]
        assert complete(reach, "moln vm show 1", 3) == ["plain,12"]


def test_completion_is_silent_where_no_cloud_answers(environment: dict[str, str]) -> None:
    assert complete({**environment, "MOLN_ENDPOINT": "127.0.0.1:1", "MOLN_TOKEN": "t"}, "moln vm show w", 3) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_of_a_shell_names_the_command(shell: str) -> None:
    done = subprocess.run([*MOLN, "completion", shell], capture_output=True, text=True, check=True)
    assert "_MOLN_COMPLETE" in done.stdout


def test_a_reader_that_goes_away_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*MOLN, "explain"], stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_version_loads_neither_grpc_nor_the_contract() -> None:
    script = (
        "import sys; from services.cli.main import run; code = run(['version']); "
        "sys.exit(code or bool({'grpc', 'rich', 'yaml', 'google.protobuf'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, capture_output=True).returncode == 0
