"""A VM from creation to nothing, on simulated hosts, by the command line."""

from __future__ import annotations

from pathlib import Path

from tests.support.eventually import eventually_sync
from tests.support.stack import Stack


def test_a_vm_lives_and_leaves_nothing(stack: Stack) -> None:
    stack.moln("vm", "create", "web", "--disk", "size=1G", "--memory", "256M", "--wait")
    vm = stack.read("vm", "show", "web")
    assert vm["view"]["state"] == "RUNNING"
    address = vm["view"]["ipv4"]
    assert [lease["ipv4"] for lease in stack.read("net", "leases", "default")] == [address]
    stack.moln("vm", "poweroff", "web", "--wait")
    off = stack.read("vm", "show", "web")
    assert (off["view"]["state"], off["view"]["ipv4"], off["view"]["host"]) == (
        "POWERED_OFF",
        address,
        vm["view"]["host"],
    )
    stack.moln("vm", "resume", "web", "--wait")
    stack.moln("vm", "terminate", "web", "--yes", "--wait")
    assert stack.read("vm", "list") == []
    assert eventually_sync(lambda: stack.read("net", "leases", "default") == [])
    host = stack.read("host", "show", vm["view"]["host"])
    assert "vms" not in host["view"]
    assert "memory_mib_used" not in host["view"]


def test_an_image_of_a_file_is_enough_for_a_vm(stack: Stack, folder: Path) -> None:
    (folder / "disk.raw").write_bytes(b"\0" * 2**20)
    stack.moln("image", "create", "blank", "--path", folder / "disk.raw")
    assert stack.read("image", "show", "blank")["view"]["state"] == "READY"
    stack.moln("vm", "create", "web", "--image", "blank", "--wait")
    refused = stack.run("image", "delete", "blank", "--yes")
    assert refused.returncode == 5
    assert "web" in refused.stderr or "VM" in refused.stderr
    stack.moln("vm", "terminate", "web", "--hard", "--yes", "--wait")
    eventually_sync(lambda: stack.run("image", "delete", "blank", "--yes").returncode == 0)
    assert stack.run("image", "show", "blank").returncode == 4


def test_a_held_vm_is_placed_when_it_is_released(stack: Stack) -> None:
    stack.moln("vm", "create", "web", "--no-net", "--memory", "64M", "--hold")
    assert stack.read("vm", "show", "web")["view"]["state"] == "HELD"
    stack.moln("vm", "release", "web", "--wait")


def test_a_template_of_the_cloud_is_instantiated_with_changes(stack: Stack, folder: Path) -> None:
    (folder / "small.yaml").write_text("memory_mib: 128M\nno_default_network: true\nlabels: {tier: front}\n")
    stack.moln("template", "create", "small", "-f", folder / "small.yaml")
    shown = stack.moln("template", "show", "small")
    (folder / "again.yaml").write_text(shown)
    stack.moln("template", "create", "again", "-f", folder / "again.yaml")
    stack.moln("template", "instantiate", "small", "--name", "one", "--memory", "256M", "--wait")
    shape = stack.read("vm", "show", "one")["spec"]["template"]
    assert (shape["memory_mib"], shape["labels"]) == (256, {"tier": "front"})
    stack.moln("vm", "create", "many", "--template", "small", "--count", "3", "--wait")
    assert len(stack.read("vm", "list", "--filter", "label.tier=front")) == 4
    stack.moln("template", "delete", "small", "again", "--yes")


def test_hosts_are_put_into_clusters_and_out(stack: Stack) -> None:
    stack.moln("cluster", "create", "gpu")
    stack.moln("cluster", "add", "gpu", "sim-4")
    assert [host["spec"]["name"] for host in stack.read("host", "list", "--filter", "cluster=gpu")] == ["sim-4"]
    assert stack.run("cluster", "delete", "gpu", "--yes").returncode == 5
    stack.moln("cluster", "remove", "gpu", "sim-4")
    stack.moln("cluster", "delete", "gpu", "--yes")


def test_a_disabled_host_gets_nothing_new(stack: Stack) -> None:
    stack.moln("host", "disable", "sim-1", "sim-2", "sim-3")
    stack.moln("vm", "create", "web", "--no-net", "--memory", "64M", "--count", "4", "--wait")
    assert {vm["view"]["host"] for vm in stack.read("vm", "list")} == {"sim-4"}
    stack.moln("host", "enable", "sim-1", "sim-2", "sim-3")


def test_a_drain_moves_what_it_can_and_says_of_the_rest_why_it_stays(stack: Stack) -> None:
    stack.moln("vm", "create", "free", "--no-net", "--memory", "64M", "--wait")
    host = stack.read("vm", "show", "free")["view"]["host"]
    stack.moln("vm", "create", "bound", "--no-net", "--memory", "64M", "--requirement", f'NAME = "{host}"', "--wait")
    try:
        left = stack.run("host", "drain", host, "--wait", "--timeout", "10s")
        assert left.returncode != 0
        assert "VM bound" in left.stderr and "0 match the requirement" in left.stderr
        assert "VM free" not in left.stderr
        assert "VM bound" in stack.moln("host", "show", host)
        assert stack.read("vm", "show", "free")["view"]["host"] != host
    finally:
        stack.moln("host", "enable", host)
    assert "Nowhere" not in stack.moln("host", "show", host)


def test_a_user_has_limits_and_sees_only_his_own(stack: Stack, folder: Path) -> None:
    token = stack.moln("user", "create", "anna", "--max-vms", "2").strip()
    stack.moln("vm", "create", "secret", "--no-net", "--memory", "64M", "--wait")
    anna = {"MOLN_ENDPOINT": stack.endpoint, "MOLN_TOKEN": token}
    shown = stack.run_as(anna, "vm", "create", "mine", "--no-net", "--memory", "64M", "--count", "3")
    assert shown.returncode == 5
    assert "QUOTA_EXCEEDED" in shown.stderr
    assert stack.run_as(anna, "vm", "list", "-o", "name").stdout.split() == ["mine-1", "mine-2"]
    assert stack.run_as(anna, "vm", "show", "secret").returncode == 4
    assert stack.run_as(anna, "host", "disable", "sim-1").returncode == 5
    stack.run_as(anna, "vm", "terminate", "mine-1", "mine-2", "--hard", "--yes", "--wait")
    eventually_sync(lambda: stack.run("user", "delete", "anna", "--yes").returncode == 0)


def test_events_tell_the_life_of_a_vm(stack: Stack) -> None:
    stack.moln("vm", "create", "told", "--no-net", "--memory", "64M", "--wait")
    number = stack.read("vm", "show", "told")["id"]
    stack.moln("vm", "terminate", "told", "--hard", "--yes", "--wait")

    def told() -> list[str]:
        return [event.get("to", "") for event in stack.read("events", "--filter", f"kind=vm id={number}")]

    assert eventually_sync(lambda: told() if told()[-1:] == [""] else None)
    states = told()
    assert states.index("RUNNING") < states.index("TERMINATING")


def test_what_is_piped_into_a_console_is_typed_and_answered(stack: Stack) -> None:
    stack.moln("vm", "create", "talk", "--no-net", "--memory", "64M", "--wait")
    done = stack.run("vm", "console", "talk", stdin="anna\n")
    assert done.returncode == 0, done.stderr
    assert "login:" in done.stdout
    stack.moln("vm", "poweroff", "talk", "--wait")
    off = stack.run("vm", "console", "talk", stdin="")
    assert off.returncode == 5
    assert "POWERED_OFF" in off.stderr
