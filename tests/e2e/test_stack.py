"""The development stack itself: side by side, killed, ended, found again; the doctor; nothing left."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.common.stacks import in_folder
from services.devstack.cleanup import leftovers
from tests.support.eventually import eventually_sync
from tests.support.stack import Stack, a_stack

SIM = ("--sim-hosts", "2", "--no-real-host")


@pytest.fixture
def own() -> Iterator[Stack]:
    with a_stack(*SIM) as stack:
        yield stack


def supervisor_of(stack: Stack) -> int:
    record = in_folder(stack.path)
    assert record is not None
    return record.pid


def test_what_ran_runs_again_after_down_and_up(own: Stack) -> None:
    own.moln("vm", "create", "web", "--memory", "64M", "--wait")
    own.moln("vm", "create", "off", "--memory", "64M", "--wait")
    own.moln("vm", "poweroff", "off", "--wait")
    before = {vm["spec"]["name"]: vm["view"]["ipv4"] for vm in own.read("vm", "list")}
    own.down()
    assert leftovers(own.folder) == []
    refused = own.run("vm", "list")
    assert refused.returncode == 6
    assert "moln dev up" in refused.stderr
    own.up()
    own.moln("vm", "wait", "web")
    after = {vm["spec"]["name"]: vm["view"] for vm in own.read("vm", "list")}
    assert {name: view["ipv4"] for name, view in after.items()} == before
    assert after["off"]["state"] == "POWERED_OFF"
    assert len(own.read("host", "list")) == 2


def test_a_simulated_host_that_was_deleted_is_there_again_after_down_and_up(own: Stack) -> None:
    own.moln("host", "delete", "sim-1", "--yes")
    own.down()
    own.up()
    assert {host["spec"]["name"] for host in own.read("host", "list")} == {"sim-1", "sim-2"}


def test_a_second_up_of_the_same_folder_is_refused_and_harms_nothing(own: Stack) -> None:
    second = own.run("dev", "up", "--state", own.path, *SIM)
    assert second.returncode == 5
    assert "runs already" in second.stderr
    assert "moln dev down" in second.stderr
    own.moln("status")


def test_two_stacks_stand_side_by_side(own: Stack) -> None:
    other = own.path.parent / "other"
    own.moln("dev", "up", "--detach", "--state", other, *SIM)
    try:
        ambiguous = own.run_as({}, "status")
        assert ambiguous.returncode == 2
        assert str(own.path) in ambiguous.stderr
        assert str(other) in ambiguous.stderr
        assert own.run_as({}, "--cloud", str(other), "vm", "list").returncode == 0
        assert {stack["state_dir"] for stack in own.read("dev", "status")} == {str(own.path), str(other)}
    finally:
        own.moln("dev", "down", "--state", other, "--purge")
    assert not other.exists()


def test_a_port_that_is_taken_moves_the_stack_to_free_ones() -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # where somebody else has it, that is as good
            taken.bind(("127.0.0.1", 2632))
        taken.listen()
        with a_stack(*SIM) as stack:
            assert not stack.endpoint.endswith(":2632")
            stack.moln("status")


def test_a_killed_supervisor_takes_its_children_along_and_the_next_up_finds_the_cloud(own: Stack) -> None:
    own.moln("vm", "create", "web", "--memory", "64M", "--wait")
    os.kill(supervisor_of(own), signal.SIGKILL)
    eventually_sync(lambda: leftovers(own.folder) == [], within=60)
    ill = own.run_as({}, "doctor", "--state", str(own.path))
    assert ill.returncode == 1
    assert "was killed" in ill.stdout
    own.up()
    own.moln("vm", "wait", "web")


def test_doctor_repairs_the_record_of_a_killed_stack(own: Stack) -> None:
    os.kill(supervisor_of(own), signal.SIGKILL)
    eventually_sync(lambda: leftovers(own.folder) == [], within=60)
    assert own.run_as({}, "doctor", "--state", str(own.path), "--fix").returncode == 0
    healthy = own.run_as({}, "doctor", "--state", str(own.path))
    assert (healthy.returncode, healthy.stdout) == (0, "nothing is left over and nothing is wrong\n")


@pytest.mark.long
def test_a_process_that_is_killed_is_started_again(own: Stack) -> None:
    before = own.pid("scheduler")
    own.kill("scheduler")
    eventually_sync(lambda: own.pid("scheduler") not in (0, before))
    own.moln("vm", "create", "web", "--no-net", "--memory", "64M", "--wait")


def test_the_folder_and_what_is_secret_in_it_are_closed_to_others(own: Stack) -> None:
    for path, mode in ((own.path, 0o700), (own.folder.token_file, 0o600), (own.folder.secret_file, 0o600)):
        assert path.stat().st_mode & 0o777 == mode, path
    assert own.path.joinpath("etcd").stat().st_mode & 0o077 == 0 or own.path.stat().st_mode & 0o077 == 0


@pytest.mark.long
def test_purge_leaves_no_file_and_no_entry(folder: Path) -> None:
    with a_stack(*SIM) as stack:
        stack.down("--purge")
        assert not stack.path.exists()
        assert stack.read("dev", "status") == []


@pytest.mark.long
def test_more_simulated_hosts_are_added_and_stay(own: Stack) -> None:
    own.down()
    own.up("--sim-hosts", "5")
    assert len(own.read("host", "list")) == 5
    own.down()
    own.up()
    assert {host["view"]["state"] for host in own.read("host", "list")} == {"UP"}
