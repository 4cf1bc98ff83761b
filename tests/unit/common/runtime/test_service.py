"""The frame of a service, as a real process: readiness, metrics, signals, parents, failures."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from services.common.runtime.process import read_ready
from tests.support.eventually import eventually_sync
from tests.support.processes import Processes

COMMAND = [sys.executable, "-m", "tests.unit.common.runtime.sample_service"]


def start(running: Processes, folder: Path, **variables: str) -> tuple[subprocess.Popen[bytes], Path]:
    ready = folder / "ready"
    return running.start(COMMAND, env={"MOLN_READY_FILE": str(ready), **variables}, name="sample"), ready


def fails(**variables: str) -> tuple[int, str]:
    done = subprocess.run(COMMAND, env={**os.environ, **variables}, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def addresses(ready: Path) -> dict[str, str]:
    return eventually_sync(lambda: read_ready(ready)) or {}


def test_a_service_says_when_and_where_it_is_ready_and_ends_in_order(running: Processes, folder: Path) -> None:
    child, ready = start(running, folder)
    where = addresses(ready)
    assert where["grpc"] == "127.0.0.1:1"
    with urllib.request.urlopen(f"http://{where['metrics']}/metrics") as answer:
        assert b"process_resident_memory_bytes" in answer.read()
    child.send_signal(signal.SIGTERM)
    assert child.wait() == 0
    assert not ready.exists()
    log = running.output("sample")
    assert log.index("cause=SIGTERM") < log.index("loops stopped")


def test_a_service_ends_with_the_process_that_started_it(running: Processes, folder: Path) -> None:
    parent = running.start(["sleep", "600"], name="parent")
    child, ready = start(running, folder, MOLN_PARENT_PID=str(parent.pid))
    addresses(ready)
    parent.kill()
    parent.wait()
    assert child.wait() == 0


def test_a_service_whose_parent_is_gone_does_not_start(running: Processes, folder: Path) -> None:
    parent = running.start(["true"], name="parent")
    parent.wait()
    child, _ = start(running, folder, MOLN_PARENT_PID=str(parent.pid))
    assert child.wait() == 0


def test_systemd_is_told(running: Processes, folder: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(folder / "notify"))
        child, _ = start(running, folder, NOTIFY_SOCKET=str(folder / "notify"))
        assert listener.recv(100) == b"READY=1"
        child.terminate()
        assert listener.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize("behaviour", ["refuse", "task_refuses"])
def test_an_expected_failure_is_one_line_without_a_traceback(behaviour: str) -> None:
    status, text = fails(MOLN_SAMPLE_BEHAVIOUR=behaviour)
    assert status == 1
    assert text.splitlines()[-1] == "moln sample: no etcd at 127.0.0.1:1; start it"
    assert "Traceback" not in text


def test_a_wrong_setting_is_one_line_and_status_2() -> None:
    status, text = fails(MOLN_SAMPLE_METRICS_ADDRESS="0.0.0.0:1")
    assert (status, text.count("\n")) == (2, 1 + text.count("event="))
    assert "can be reached from other machines" in text
    assert fails(MOLN_SAMPLE_COLOUR="red")[0] == 2


def test_a_defect_is_logged_on_one_line(folder: Path) -> None:
    status, text = fails(MOLN_SAMPLE_BEHAVIOUR="defect")
    assert status == 1
    assert "service failed" in text.splitlines()[-1]
    assert "KeyError" in text.splitlines()[-1]


def test_every_setting_can_be_printed() -> None:
    done = subprocess.run([*COMMAND, "--print-config"], capture_output=True, text=True, check=True)
    assert '#behaviour = "serve"' in done.stdout
