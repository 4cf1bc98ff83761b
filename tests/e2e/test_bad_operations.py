"""Operations that cannot be: each gets one line that names the thing and the remedy, and leaves the VM as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.test_bad_input import line
from tests.support.eventually import eventually_sync
from tests.support.stack import Stack, a_stack

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def own_stack() -> Iterator[Stack]:
    """Three simulated hosts, with a VM `web` that has a disk and an interface."""
    with a_stack("--sim-hosts", "3", "--no-real-host") as stack:
        stack.moln("vm", "create", "web", "--disk", "size=1G", "--memory", "256M", "--wait")
        yield stack


@pytest.fixture
def web(own_stack: Stack) -> Iterator[Stack]:
    """The stack; `web` is unchanged by whatever is refused."""
    before = own_stack.read("vm", "show", "web")
    yield own_stack
    after = own_stack.read("vm", "show", "web")
    assert (after["spec"]["template"], after["view"]["state"]) == (before["spec"]["template"], "RUNNING")
    assert "operation" not in after["intent"]


def command(stack: Stack, name: str, value: str) -> None:
    """A knob of the simulator, once it is turned."""
    before = stack.log("sim").count("command obeyed")
    with (stack.folder.state_of("sim") / "sim" / "control").open("a") as control:
        control.write(f"set {name} {value}\n")
    eventually_sync(lambda: stack.log("sim").count("command obeyed") > before, what=f"{name} is {value}")


def test_a_disk_or_device_that_is_not_there_is_named_with_those_that_are(web: Stack) -> None:
    code, text = line(web, "vm", "detach-disk", "web", "7", "--yes")
    assert (code, "no disk 7; it has 0" in text) == (4, True), text
    code, text = line(web, "vm", "resize-disk", "web", "7", "2G")
    assert (code, "no disk 7; it has 0" in text) == (4, True), text
    code, text = line(web, "vm", "detach-nic", "web", "7")
    assert (code, "no interface 7; it has 0" in text) == (4, True), text


def test_what_is_to_be_attached_must_exist(web: Stack) -> None:
    code, text = line(web, "vm", "attach-disk", "web", "image=nowhere")
    assert (code, "nowhere" in text) == (4, True), text
    code, text = line(web, "vm", "attach-nic", "web", "nowhere")
    assert (code, "nowhere" in text) == (4, True), text
    code, text = line(web, "vm", "attach-disk", "web", "size=1G,bus=warp")
    assert (code, "bus" in text) == (2, True), text


def test_disks_do_not_shrink_and_the_least_is_named(web: Stack) -> None:
    code, text = line(web, "vm", "resize-disk", "web", "0", "512M")
    assert (code, "1024 MiB" in text and "only grow" in text) == (2, True), text


def test_a_size_beyond_the_host_is_refused_and_nothing_is_kept_of_it(web: Stack) -> None:
    code, text = line(web, "vm", "resize", "web", "--memory", "900G", "--wait")
    assert (code, "resize failed" in text and "memory" in text.lower()) == (1, True), text
    host = web.read("host", "show", web.read("vm", "show", "web")["view"]["host"])
    assert int(host["view"]["memory_mib_used"]) == 256


def test_a_verb_in_the_wrong_state_names_it_and_the_allowed_ones(web: Stack) -> None:
    code, text = line(web, "vm", "release", "web")
    assert (code, "it is RUNNING; release is allowed in HELD, PENDING" in text) == (5, True), text


def test_a_snapshot_has_a_name_of_its_own_and_one_that_is_not_there_is_named(web: Stack) -> None:
    web.moln("vm", "snapshot-create", "web", "before", "--wait")
    code, text = line(web, "vm", "snapshot-create", "web", "before")
    assert (code, "a snapshot before already" in text) == (5, True), text
    code, text = line(web, "vm", "snapshot-revert", "web", "after", "--yes")
    assert (code, "no snapshot 'after'; it has before" in text) == (4, True), text
    code, text = line(web, "vm", "snapshot-create", "web", "a/b")
    assert (code, "a/b" in text) == (2, True), text
    web.moln("vm", "snapshot-delete", "web", "before", "--wait")


def test_a_snapshot_of_a_disk_needs_a_disk_that_can_have_one_and_a_name_of_its_own(own_stack: Stack) -> None:
    disks = ("--disk", "size=16M", "--disk", "size=16M,format=raw", "--disk", "size=16M,is_read_only=true")
    own_stack.moln("vm", "create", "disks", *disks, "--no-net", "--memory", "64M", "--wait")
    own_stack.moln("vm", "disk-snapshot-create", "disks", "0", "before", "--wait")
    assert "snapshots before" in own_stack.moln("vm", "show", "disks")
    assert own_stack.moln("vm", "disk-snapshot-list", "disks", "0").startswith("disk 0  before")
    wrong = (
        ("create", "7", "x", 4, "no disk 7; it has 0, 1, 2"),
        ("create", "0", "before", 5, "disk 0 has a snapshot before already; delete it, or choose another name"),
        ("create", "0", "a/b", 2, "'a/b' is no name"),
        ("create", "1", "x", 2, "disk 1 is raw: only a qcow2 disk holds snapshots"),
        ("create", "2", "x", 2, "disk 2 is read-only: it never changes"),
        ("delete", "0", "after", 4, "disk 0 has no snapshot 'after'; it has before"),
        ("delete", "1", "before", 4, "disk 1 has no snapshot 'before'; it has none"),
        ("delete", "7", "before", 4, "no disk 7; it has 0, 1, 2"),
    )
    for verb, disk, name, expected, words in wrong:
        code, text = line(own_stack, "vm", f"disk-snapshot-{verb}", "disks", disk, name)
        assert (code, words in text) == (expected, True), text
    code, text = line(own_stack, "vm", "disk-snapshot-revert", "disks", "0", "before", "--yes")
    assert (code, "it is RUNNING; disk-snapshot-revert is allowed in POWERED_OFF" in text) == (5, True), text
    code, text = line(own_stack, "vm", "disk-snapshot-list", "disks", "7")
    assert (code, "no disk 7; it has 0, 1, 2" in text) == (4, True), text
    own_stack.moln("vm", "poweroff", "disks", "--hard", "--wait")
    own_stack.moln("vm", "disk-snapshot-revert", "disks", "0", "before", "--yes", "--wait")
    own_stack.moln("vm", "disk-snapshot-delete", "disks", "0", "before", "--wait")
    assert own_stack.moln("vm", "disk-snapshot-list", "disks") == ""


def test_a_cancel_that_comes_too_late_says_how_it_ended(web: Stack) -> None:
    web.moln("vm", "reboot", "web", "--wait")
    ended = web.read("vm", "operation", "web")["id"]
    code, text = line(web, "vm", "cancel", "web", ended)
    assert (code, "is done already" in text) == (5, True), text
    code, text = line(web, "vm", "cancel", "web")
    assert (code, "no operation in flight" in text) == (4, True), text
    code, text = line(web, "vm", "operation", "web", "nonsense")
    assert (code, "nonsense" in text) == (4, True), text


def test_a_vm_moves_only_to_a_host_that_is_another_one_and_there(web: Stack) -> None:
    own = web.read("vm", "show", "web")["view"]["host"]
    code, text = line(web, "vm", "migrate", "web", own)
    assert (code, "is the host that the VM is on" in text) == (2, True), text
    code, text = line(web, "vm", "migrate", "web", "nowhere")
    assert (code, "nowhere" in text) == (4, True), text
    other = next(host["spec"]["name"] for host in web.read("host", "list") if host["spec"]["name"] != own)
    web.moln("host", "disable", other)
    code, text = line(web, "vm", "migrate", "web", other, "--wait")
    web.moln("host", "enable", other)
    assert (code, "migrate failed" in text) == (1, True), text


def test_times_of_scheduled_verbs_are_checked(web: Stack) -> None:
    code, text = line(web, "vm", "poweroff", "web", "--at", "2020-01-01T00:00")
    assert (code, "past" in text) == (2, True), text
    code, text = line(web, "vm", "poweroff", "web", "--every", "24h")
    assert (code, "--at" in text) == (2, True), text
    code, text = line(web, "vm", "poweroff", "web", "--at", "+2h", "--every", "5s")
    assert (code, "at least 60 s" in text) == (2, True), text
    code, text = line(web, "vm", "unschedule", "web", "9")
    assert (code, "no scheduled verb 9" in text) == (4, True), text


def test_a_scheduled_verb_is_shown_carried_out_and_taken_back(own_stack: Stack) -> None:
    own_stack.moln("vm", "create", "night", "--no-net", "--memory", "64M", "--wait")
    own_stack.moln("vm", "undeploy", "night", "--hard", "--at", "+2h", "--every", "24h")
    shown = own_stack.moln("vm", "scheduled", "night")
    assert "undeploy --hard" in shown
    assert "every 86400 s" in shown
    own_stack.moln("vm", "release", "night", "--at", "+1s", "--every", "60s")
    own_stack.moln("vm", "poweroff", "night", "--at", "+1s", "--hard")
    own_stack.moln("vm", "wait", "night", "--for", "powered-off")

    def is_noted() -> bool:
        now = own_stack.moln("vm", "scheduled", "night")
        return "STATE_FORBIDS" in now and "poweroff" not in now

    eventually_sync(is_noted, what="what could not be done is noted, and what was done is gone")
    number = next(row.split()[0] for row in own_stack.moln("vm", "scheduled", "night").splitlines() if "undep" in row)
    own_stack.moln("vm", "unschedule", "night", number)
    assert "undeploy" not in own_stack.moln("vm", "scheduled", "night")


def test_an_operation_in_flight_is_seen_refuses_another_and_is_given_up(own_stack: Stack) -> None:
    own_stack.moln("vm", "create", "slow", "--no-net", "--memory", "64M", "--wait")
    command(own_stack, "deed_latency_s", "60")
    own_stack.moln("vm", "migrate", "slow")
    command(own_stack, "deed_latency_s", "0")
    assert "in flight" in own_stack.moln("vm", "operation", "slow")
    code, text = line(own_stack, "vm", "reboot", "slow")
    assert code == 5, text
    own_stack.moln("vm", "cancel", "slow")
    ended = eventually_sync(lambda: own_stack.read("vm", "operation", "slow").get("reason"), what="it is given up")
    assert ended == "OPERATION_CANCELLED"
    assert own_stack.read("vm", "show", "slow")["view"]["state"] == "RUNNING"


@pytest.mark.parametrize(("action", "state"), [("retry", "RUNNING"), ("failure", "POWERED_OFF"), ("delete", "")])
def test_a_vm_that_does_not_start_is_recovered(own_stack: Stack, action: str, state: str) -> None:
    name = f"stuck-{action}"
    command(own_stack, "start_failure_rate", "1")
    own_stack.moln("vm", "create", name, "--no-net", "--memory", "64M", "--host", "sim-1")
    eventually_sync(lambda: own_stack.read("vm", "show", name)["view"]["state"] == "FAILED", what="it fails")
    own_stack.moln("vm", "recover", name, "--as", action, "--yes")
    if action != "failure":  # not before: once it runs there is nothing to recover
        command(own_stack, "start_failure_rate", "0")
    if state:
        own_stack.moln("vm", "wait", name, "--for", state.lower().replace("_", "-"))
    else:
        eventually_sync(lambda: own_stack.run("vm", "show", name).returncode == 4, what="it is gone")
    command(own_stack, "start_failure_rate", "0")


def test_an_operation_that_was_done_by_hand_is_declared_done(own_stack: Stack) -> None:
    own_stack.moln("vm", "create", "hand", "--no-net", "--memory", "64M", "--wait")
    command(own_stack, "deed_latency_s", "60")
    own_stack.moln("vm", "reboot", "hand")
    own_stack.moln("vm", "recover", "hand", "--as", "success", "--yes")
    command(own_stack, "deed_latency_s", "0")
    ended = own_stack.read("vm", "operation", "hand")
    assert (ended["is_done"], ended.get("reason", "")) == (True, "")


def test_a_suspended_vm_is_powered_off_only_by_dropping_its_memory_and_a_vm_at_rest_is_not_recovered(
    own_stack: Stack,
) -> None:
    own_stack.moln("vm", "create", "asleep", "--no-net", "--memory", "64M", "--wait")
    code, text = line(own_stack, "vm", "recover", "asleep")
    assert (code, "here is nothing to recover" in text) == (5, True), text
    own_stack.moln("vm", "suspend", "asleep", "--wait")
    code, text = line(own_stack, "vm", "poweroff", "asleep")
    assert (code, "resume it first" in text) == (5, True), text
    own_stack.moln("vm", "poweroff", "asleep", "--hard", "--wait")
    assert own_stack.read("vm", "show", "asleep")["view"]["state"] == "POWERED_OFF"
    own_stack.moln("vm", "resume", "asleep", "--wait")
    own_stack.moln("vm", "poweroff", "asleep", "--hard", "--wait")


def test_the_users_own_fields_are_set_shown_and_taken_away(own_stack: Stack) -> None:
    own_stack.moln("vm", "create", "mine", "--no-net", "--memory", "64M", "--hold")
    own_stack.moln("vm", "update", "mine", "--field", "ticket=4711")
    assert own_stack.read("vm", "show", "mine")["spec"]["user_fields"] == {"ticket": "4711"}
