"""The other commands against canned answers, and what all commands have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from moln.compute.v1.cluster_pb2 import Cluster, ClusterSpec, ClusterView
from moln.compute.v1.host_pb2 import Host, HostInventory, HostSpec, HostState, HostView
from moln.compute.v1.host_service_pb2 import CreateHostResponse, ListHostsResponse
from moln.compute.v1.vm_pb2 import Vm, VmSpec, VmState, VmView
from moln.compute.v1.vm_service_pb2 import ListVmsResponse
from moln.iam.v1.user_pb2 import User, UserSpec
from moln.iam.v1.user_service_pb2 import CreateUserResponse, SetPasswordResponse
from moln.image.v1.image_pb2 import Image, ImageSource, ImageSpec, ImageState, ImageStatus, ImageView
from moln.network.v1.network_pb2 import Lease, Network, NetworkSpec, NetworkView
from moln.network.v1.network_service_pb2 import ListLeasesResponse
from moln.operations.v1.operations_service_pb2 import CloudStatus, Event, ListEventsResponse, Problem
from moln.scheduler.v1.scheduler_service_pb2 import (
    Candidate,
    CheckExpressionResponse,
    ExplainVmResponse,
    FilterResult,
    ScorePart,
)
from services.cli.command_line import Command
from services.cli.main import COMMANDS, root
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from tests.integration.cli.conftest import Moln
from tests.support.api import CannedApi


def host(number: int = 1, state: HostState = HostState.HOST_STATE_UP) -> Host:
    view = HostView(state=state, vms=2, cpu_percent_total=800, cpu_percent_used=150, memory_mib_total=16384)
    return Host(id=number, spec=HostSpec(name=f"node-{number}"), inventory=HostInventory(hypervisor="kvm"), view=view)


def leaf_commands(group: click.Group, path: str = "moln") -> list[tuple[str, click.Command]]:
    context = click.Context(group)
    found: list[tuple[str, click.Command]] = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            found += leaf_commands(command, f"{path} {name}")
        else:
            found.append((f"{path} {name}", command))
    return found


@pytest.mark.parametrize(
    ("path", "command"), leaf_commands(root), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_command_has_examples_that_begin_with_it_and_a_choice_of_cloud(path: str, command: click.Command) -> None:
    assert isinstance(command, Command)
    assert command.help
    assert any(path in line for line in command.examples)
    assert any(parameter.name == "cloud" for parameter in command.params)


def test_the_help_of_every_group_is_that_of_the_table() -> None:
    context = click.Context(root)
    for name, text in COMMANDS.items():
        command = root.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            assert (command.help or "").partition(".")[0] == text.partition(".")[0] or command.help


def test_a_host_is_created_with_the_command_that_joins_it(api: CannedApi, moln: Moln) -> None:
    api.answers["CreateHost"] = CreateHostResponse(host=host(), join_token="t0k", node_address="127.0.0.1:2634")
    shown = moln("host", "create", "node-1", "--label", "rack=b")
    assert "--join t0k --api 127.0.0.1:2634" in shown.out
    assert dict(api.requests("CreateHost")[0].labels) == {"rack": "b"}


def test_hosts_are_listed_with_what_is_given_out(api: CannedApi, moln: Moln) -> None:
    api.answers["ListHosts"] = ListHostsResponse(hosts=[host()])
    line = moln("host", "list").out.splitlines()[1]
    assert "1.5/8" in line
    assert "kvm" in line


def test_a_host_in_use_is_not_deleted(api: CannedApi, moln: Moln) -> None:
    api.answers["GetHost"] = host()
    api.answers["DeleteHost"] = MolnError(Reason.HOST_IN_USE, "host node-1 has 2 VMs")
    assert moln("host", "delete", "1", "--yes").code == 5


def test_fencing_needs_the_word_of_the_administrator(api: CannedApi, moln: Moln) -> None:
    api.answers["GetHost"] = host()
    shown = moln("host", "fence", "1")
    assert (shown.code, api.requests("FenceHost")) == (2, [])
    assert "--confirmed" in shown.err


def test_a_host_with_a_fence_command_is_fenced_by_it(api: CannedApi, moln: Moln) -> None:
    found = host(state=HostState.HOST_STATE_SILENT)
    found.spec.fence_command = "ipmi"
    api.answers["GetHost"] = found
    api.answers["FenceHost"] = host(state=HostState.HOST_STATE_FENCED)
    assert moln("host", "fence", "1").out == "host node-1 (1) is FENCED\n"
    assert not api.requests("FenceHost")[0].is_confirmed


def test_a_failed_script_is_told_in_its_own_words(api: CannedApi, moln: Moln) -> None:
    api.answers["GetHost"] = host()
    api.answers["PowerOnHost"] = MolnError(Reason.SCRIPT_FAILED, "power on host node-1: ipmi power_on: no route")
    shown = moln("host", "power", "on", "1")
    assert (shown.code, len(api.requests("PowerOnHost"))) == (5, 1), "it was not asked again unasked"
    assert "ipmi power_on: no route" in shown.err


def test_a_drain_is_followed_to_its_end(api: CannedApi, moln: Moln) -> None:
    left = [2, 2, 1, 0]

    def draining(_: Any) -> Host:
        found = host(state=HostState.HOST_STATE_DRAINING)
        found.view.drain_left, found.view.drain_total = left[0] if len(left) == 1 else left.pop(0), 2
        return found

    api.answers["GetHost"] = api.answers["DrainHost"] = draining
    shown = moln("host", "drain", "1", "--wait")
    assert shown.code == 0
    assert shown.out.splitlines()[-1] == "host node-1 (1): 0 of 2 VMs left"


def test_a_drain_that_takes_too_long_says_what_is_left_and_why(api: CannedApi, moln: Moln) -> None:
    found = host(state=HostState.HOST_STATE_MAINTENANCE)
    found.view.drain_left, found.view.drain_total = 3, 3
    api.answers["GetHost"] = api.answers["MaintainHost"] = found
    bound, moving = Vm(id=4), Vm(id=5)
    bound.spec.name, bound.placement.refusal.reason = "db", "NO_HOST_FITS"
    bound.placement.refusal.message = "2 hosts: 1 enabled, 0 match the requirement"
    api.answers["ListVms"] = ListVmsResponse(vms=[bound, moving])
    shown = moln("host", "maintenance", "1", "--wait", "--timeout", "1s")
    assert (shown.code, "host node-1 (1) has 3" in shown.err) == (3, True)
    assert shown.err.splitlines()[1:] == ["  VM db (4): 2 hosts: 1 enabled, 0 match the requirement"]
    assert api.requests("ListVms")[0].filter == "host=1"


def test_scripts_and_parameters_of_a_host_are_set_and_taken_away(api: CannedApi, moln: Moln) -> None:
    found = host()
    found.spec.script_parameters.update({"address": "bmc-1", "old": "x"})
    api.answers["GetHost"] = api.answers["UpdateHost"] = found
    assert moln("host", "update", "1", "--fence-command", "ipmi", "--parameter", "old=", "--parameter", "a=b").code == 0
    (asked,) = api.requests("UpdateHost")
    assert (asked.spec.fence_command, dict(asked.spec.script_parameters)) == ("ipmi", {"address": "bmc-1", "a": "b"})
    assert set(asked.update_mask.paths) == {"fence_command", "script_parameters"}


def ready(request: Any) -> Image:
    first = request[0].image if isinstance(request, list) else request
    status = ImageStatus(state=ImageState.IMAGE_STATE_READY, format="raw", virtual_size_bytes=2**20)
    return Image(
        id=3, spec=ImageSpec(name=first.name), status=status, view=ImageView(state=ImageState.IMAGE_STATE_READY)
    )


def test_a_file_is_sent_up_whole(api: CannedApi, moln: Moln, folder: Path) -> None:
    content = bytes(range(256)) * 10_000
    (folder / "disk.raw").write_bytes(content)
    api.answers["UploadImage"] = ready
    shown = moln("image", "create", "debian", "--path", str(folder / "disk.raw"))
    assert (shown.code, shown.out) == (0, "image debian (3) is READY, 1 MiB raw\n")
    sent = api.requests("UploadImage")[0]
    assert b"".join(piece.data for piece in sent) == content
    assert sent[0].total_bytes == len(content)
    assert [piece.is_last for piece in sent][-1]
    assert max(len(piece.data) for piece in sent) <= 2**20


def test_a_file_that_is_not_there_is_named(moln: Moln) -> None:
    shown = moln("image", "create", "debian", "--path", "/nowhere/disk.raw")
    assert (shown.code, shown.err) == (
        2,
        "moln: the image /nowhere/disk.raw cannot be read: No such file or directory\n",
    )


def test_an_image_comes_from_one_place(moln: Moln) -> None:
    shown = moln("image", "create", "debian", "--url", "http://x/y", "--size", "1G")
    assert shown.code == 2
    assert "--url and --size" in shown.err


def test_an_import_that_fails_says_why_and_how_to_get_rid_of_it(api: CannedApi, moln: Moln) -> None:
    status = ImageStatus(state=ImageState.IMAGE_STATE_ERROR, reason="DOWNLOAD_FAILED", message="http://x/y answers 404")
    failed = Image(
        id=3, spec=ImageSpec(name="debian"), status=status, view=ImageView(state=ImageState.IMAGE_STATE_ERROR)
    )
    api.answers["CreateImage"] = failed
    shown = moln("image", "create", "debian", "--url", "http://x/y")
    assert shown.code == 1
    assert "DOWNLOAD_FAILED: http://x/y answers 404; `moln image delete 3 --yes`" in shown.err
    assert api.requests("CreateImage")[0].source == ImageSource.IMAGE_SOURCE_URL


def test_a_network_gives_out_all_its_addresses_but_the_gateway(api: CannedApi, moln: Moln) -> None:
    api.answers["CreateNetwork"] = lambda request: Network(
        id=2, spec=request.spec, view=NetworkView(addresses_total=253)
    )
    shown = moln("net", "create", "front", "--cidr", "10.44.0.0/24", "--nat")
    spec = api.requests("CreateNetwork")[0].spec
    assert shown.code == 0
    assert (spec.gateway, spec.has_nat, spec.is_gateway_on_node) == ("10.44.0.1", True, True)
    assert [(part.first_ipv4, part.size) for part in spec.ranges] == [("10.44.0.2", 253)]


def test_a_gateway_in_the_middle_splits_the_range(api: CannedApi, moln: Moln) -> None:
    api.answers["CreateNetwork"] = lambda request: Network(id=2, spec=request.spec)
    moln("net", "create", "front", "--cidr", "10.44.0.0/29", "--gateway", "10.44.0.3")
    spec = api.requests("CreateNetwork")[0].spec
    assert [(part.first_ipv4, part.size) for part in spec.ranges] == [("10.44.0.1", 2), ("10.44.0.4", 3)]


def test_a_network_is_shown_with_its_leases(api: CannedApi, moln: Moln) -> None:
    api.answers["GetNetwork"] = Network(id=2, spec=NetworkSpec(name="front", cidr="10.44.0.0/24"))
    api.answers["ListLeases"] = ListLeasesResponse(leases=[Lease(ipv4="10.44.0.2", mac="02:00:0a:2c:00:02", vm_id=7)])
    assert "10.44.0.2  02:00:0a:2c:00:02   7" in moln("net", "show", "2").out


def test_a_token_goes_to_standard_output_alone(api: CannedApi, moln: Moln) -> None:
    api.answers["CreateUser"] = CreateUserResponse(user=User(id=2, spec=UserSpec(name="anna")), token="t0k")
    shown = moln("user", "create", "anna", "--max-memory", "64G")
    assert shown.out == "t0k\n"
    assert api.requests("CreateUser")[0].limits.memory_mib == 65536


def test_a_password_is_never_an_argument(api: CannedApi, moln: Moln) -> None:
    api.answers["SetPassword"] = SetPasswordResponse()
    assert moln("user", "password", "2").code == 2
    assert moln("user", "password", "2", "--remove").code == 0


def test_the_status_says_what_is_wrong_and_what_to_do(api: CannedApi, moln: Moln) -> None:
    problem = Problem(subject="host node-1", reason="HOST_SILENT", message="is silent", remedy="start its agent")
    api.answers["GetStatus"] = CloudStatus(version="0.1.0", hosts={"UP": 3, "SILENT": 1}, problems=[problem])
    shown = moln("status")
    assert shown.code == 0
    assert "hosts    1 SILENT, 3 UP" in shown.out
    assert "host node-1: is silent (HOST_SILENT)\n    remedy: start its agent" in shown.out


def test_events_are_shown_with_from_and_to(api: CannedApi, moln: Moln) -> None:
    event = Event(revision=4, kind="vm", id=7, name="web", to="RUNNING")
    setattr(event, "from", "STARTING")
    api.answers["ListEvents"] = ListEventsResponse(events=[event])
    assert "vm web (7)  STARTING → RUNNING" in moln("events").out


def test_a_wrong_token_exits_5(api: CannedApi, moln: Moln) -> None:
    api.answers["GetStatus"] = MolnError(Reason.TOKEN_INVALID, "the token is not one of this cloud: get a new one")
    shown = moln("status")
    assert (shown.code, shown.err) == (5, "moln: the token is not one of this cloud: get a new one\n")


def test_a_leader_that_steps_down_is_asked_again(api: CannedApi, moln: Moln) -> None:
    answers = iter([MolnError(Reason.NOT_LEADER, "ask again"), CloudStatus(version="0.1.0")])
    api.answers["GetStatus"] = lambda _: next(answers)
    assert moln("status").code == 0


def test_an_unknown_command_is_answered_with_the_nearest(moln: Moln) -> None:
    shown = moln("vm", "lst")
    assert shown.code == 2
    assert "there is no command 'lst' (did you mean 'list'?)" in shown.err


def test_what_help_shows_goes_to_standard_output_and_exits_0(moln: Moln) -> None:
    shown = moln("vm", "create", "--help")
    assert shown.code == 0
    assert "moln vm create web --image debian --memory 2G --wait" in shown.out


def test_a_field_of_the_contract_is_explained(moln: Moln) -> None:
    shown = moln("explain", "template.disks.bus").out
    assert shown.startswith("template.disks.bus  (text)")
    assert "virtio" in shown


def test_an_unknown_field_is_answered_with_the_nearest(moln: Moln) -> None:
    shown = moln("explain", "template.dsks")
    assert (shown.code, shown.err) == (2, "moln: template has no field 'dsks' (did you mean 'disks'?)\n")


def test_a_guest_of_others_is_imported_by_host_and_name(api: CannedApi, moln: Moln) -> None:
    api.answers["ListHosts"] = ListHostsResponse(hosts=[host()])
    vm = Vm(id=7, spec=VmSpec(name="db"), view=VmView(state=VmState.VM_STATE_PENDING))
    api.answers["ImportVm"] = vm
    done = moln("vm", "import", "node-1", "legacy-db", "--name", "db")
    assert (done.code, done.out) == (0, "VM db (7) is PENDING\n")
    (sent,) = api.requests("ImportVm")
    assert (sent.host_id, sent.guest, sent.name) == (host().id, "legacy-db", "db")
    api.answers["ImportVm"] = MolnError(Reason.STATE_FORBIDS, "import guest legacy-db: it is off; start it first")
    refused = moln("vm", "import", "node-1", "legacy-db")
    assert refused.code != 0
    assert "it is off; start it first" in refused.err


def test_policies_and_labels_of_a_cluster_are_changed(api: CannedApi, moln: Moln) -> None:
    found = Cluster(id=3, spec=ClusterSpec(name="batch", labels={"site": "graz"}), view=ClusterView(etag="9"))
    api.answers["GetCluster"] = api.answers["UpdateCluster"] = api.answers["CreateCluster"] = found
    assert moln("cluster", "create", "batch", "--policy", "packing", "--label", "site=graz").code == 0
    assert [each.policy for each in api.requests("CreateCluster")[0].policies] == [1]
    shown = moln("cluster", "update", "3", "--policy", "packing=2", "--policy", "preference", "--label", "site=")
    assert (shown.code, shown.out) == (0, "changed cluster batch (3)\n")
    (asked,) = api.requests("UpdateCluster")
    assert (asked.id, asked.etag, sorted(asked.update_mask.paths)) == (3, "9", ["labels", "policies"])
    assert [(each.policy, each.weight) for each in asked.spec.policies] == [(1, 2.0), (4, 0.0)]
    assert not asked.spec.labels
    assert moln("cluster", "update", "3").code == 2
    assert moln("cluster", "update", "3", "--policy", "packing", "--no-policies").code == 2


def test_a_vm_is_explained_with_the_parts_of_each_score(api: CannedApi, moln: Moln) -> None:
    api.answers["GetVm"] = Vm(id=4, spec=VmSpec(name="db"))
    parts = [ScorePart(name="packing", weight=2, value=0.25), ScorePart(name="preference", weight=1, value=0.3)]
    api.answers["ExplainVm"] = ExplainVmResponse(
        hosts=3, filters=[FilterResult(name="enabled", hosts_left=2)], unknown_attributes=["RAK"],
        candidates=[Candidate(host_id=1, host="node-1", score=0.8, parts=parts), Candidate(host_id=2, host="node-2")],
    )  # fmt: skip
    shown = moln("scheduler", "explain", "4", "--candidates", "2")
    assert shown.code == 0
    assert shown.out.startswith("it fits\n")
    assert "     2 left by enabled" in shown.out
    assert "node-1 (1)  0.8 = 2 × packing 0.25 + 1 × preference 0.3" in shown.out
    assert "no host has the attribute RAK" in shown.out
    assert api.requests("ExplainVm")[0].max_candidates == 2


def test_an_expression_is_checked_and_warned_of(api: CannedApi, moln: Moln) -> None:
    api.answers["CheckExpression"] = CheckExpressionResponse(warnings=["no host has the attribute RAK"])
    shown = moln("scheduler", "check", "--requirement", "RAK = 1")
    assert (shown.code, shown.out) == (0, "it can be read\n")
    assert shown.err == "moln: warning: no host has the attribute RAK\n"
    assert moln("scheduler", "check").code == 2
