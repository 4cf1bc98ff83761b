"""Requirements and policies through the whole stack, on simulated hosts."""

from __future__ import annotations

from tests.support.eventually import eventually_sync
from tests.support.stack import Stack


def hosts_of(stack: Stack, name: str) -> list[str]:
    """The hosts of all VMs with names that begin so."""
    return [vm["view"]["host"] for vm in stack.read("vm", "list", "--filter", f"name={name}*")]


def test_an_attribute_that_no_host_has_is_warned_of_and_is_in_the_reason(stack: Stack) -> None:
    made = stack.run("vm", "create", "odd", "--no-net", "--memory", "64M", "--requirement", 'HOSTNAM = "sim-*"')
    assert made.returncode == 0
    assert made.stderr == "moln: warning: no host has the attribute HOSTNAM; did you mean HOSTNAME?\n"
    assert eventually_sync(lambda: "no host has the attribute HOSTNAM" in stack.moln("vm", "show", "odd"))
    checked = stack.run("scheduler", "check", "--requirement", 'HOSTNAME = "sim-[12]" & CURRENT_VMS != 77')
    assert (checked.stdout, checked.stderr) == ("fine\n", "")
    stack.moln("vm", "terminate", "odd", "--hard", "--yes", "--wait")


def test_vms_are_packed_as_they_say_and_as_their_cluster_says(stack: Stack) -> None:
    small = ("--no-net", "--memory", "64M", "--cpu-percent", "10", "--count", "6", "--wait")
    stack.moln("vm", "create", "own", *small, "--policy", "packing=2", "--policy", "preference")
    assert len(set(hosts_of(stack, "own"))) == 1
    explained = stack.moln("scheduler", "explain", "own-1")
    assert explained.startswith("it fits") and "2 × packing" in explained
    stack.moln("vm", "terminate", "--filter", "name=own*", "--hard", "--yes", "--wait")
    stack.moln("cluster", "create", "batch", "--label", "kind=batch")
    stack.moln("cluster", "add", "batch", "sim-3", "sim-4")
    try:
        batch = ("--requirement", "CLUSTER_LABEL_KIND = batch")
        stack.moln("vm", "create", "spread", *small, *batch)
        assert set(hosts_of(stack, "spread")) == {"sim-3", "sim-4"}
        stack.moln("cluster", "update", "batch", "--policy", "packing")
        stack.moln("vm", "create", "packed", *small, *batch)
        assert len(set(hosts_of(stack, "packed"))) == 1
    finally:
        stack.moln("vm", "terminate", "--filter", "name=spread*,packed*", "--hard", "--yes", "--wait")
        stack.moln("cluster", "remove", "batch", "sim-3", "sim-4")
        stack.moln("cluster", "delete", "batch", "--yes")


def test_the_load_that_agents_report_is_an_attribute(stack: Stack) -> None:
    """Simulated hosts report what their simulated guests take."""
    stack.moln("vm", "create", "busy", "--no-net", "--memory", "64M", "--host", "sim-1", "--wait")
    idle = ("--no-net", "--memory", "64M", "--wait", "--policy", "load-aware")
    stack.moln("vm", "create", "calm", *idle, "--requirement", "LOAD_CPU < 100 & LOAD_MEMORY < 100")
    assert hosts_of(stack, "calm") != ["sim-1"]
    stack.moln("vm", "terminate", "busy", "calm", "--hard", "--yes", "--wait")
