"""`moln vm` against canned answers: what is sent, what is shown, with which exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from moln.compute.v1.placement_pb2 import PlacementPolicy
from moln.compute.v1.template_pb2 import DiskTemplate, RestartPolicy, VmTemplate
from moln.compute.v1.vm_pb2 import NicAddress, Vm, VmAddresses, VmIntent, VmSpec, VmState, VmView
from moln.compute.v1.vm_service_pb2 import (
    BatchCreateVmsResponse,
    BatchCreateVmsResult,
    Failure,
    GetVmConsoleLogResponse,
    ListVmsResponse,
    WatchVmsResponse,
)
from moln.scheduler.v1.scheduler_service_pb2 import CheckExpressionResponse, ExplainVmResponse, FilterResult
from services.common.domain.errors import MolnError, invalid
from services.common.domain.reasons import Reason
from tests.integration.cli.conftest import Moln
from tests.support.api import CannedApi


def vm(number: int, name: str, state: VmState = VmState.VM_STATE_RUNNING, **view: Any) -> Vm:
    shape = VmTemplate(vcpus=2, cpu_percent=200, memory_mib=2048, disks=[DiskTemplate(image="debian", image_id=3)])
    return Vm(
        id=number,
        uid=f"uid-{number}",
        spec=VmSpec(name=name, owner="anna", template=shape),
        intent=VmIntent(),
        addresses=VmAddresses(nics=[NicAddress(ipv4="10.0.0.7", mac="02:00:0a:00:00:07", bridge="moln1")]),
        view=VmView(state=state, host="node-1", host_id=1, ipv4="10.0.0.7", **view),
    )


def listed(*vms: Vm) -> Any:
    """Answers lists as the api does: by the filter on the name."""

    def answer(request: Any) -> ListVmsResponse:
        name = request.filter.removeprefix("name=") if request.filter.startswith("name=") else ""
        return ListVmsResponse(vms=[item for item in vms if not name or item.spec.name == name])

    return answer


def test_a_list_is_plain_aligned_columns_without_a_terminal(api: CannedApi, moln: Moln) -> None:
    api.answers["ListVms"] = listed(vm(7, "web"), vm(12, "database-1"))
    shown = moln("vm", "list")
    assert shown.code == 0
    lines = shown.out.splitlines()
    assert lines[0].split() == ["ID", "NAME", "STATE", "HOST", "ADDRESS", "VCPUS", "MEMORY", "SINCE", "REASON"]
    assert lines[1].split()[:5] == ["7", "web", "RUNNING", "node-1", "10.0.0.7"]
    assert lines[1].index("RUNNING") == lines[2].index("RUNNING")


def test_lists_have_all_their_pages(api: CannedApi, moln: Moln) -> None:
    pages = {"": ([vm(1, "a")], "next"), "next": ([vm(2, "b")], "")}
    api.answers["ListVms"] = lambda request: ListVmsResponse(
        vms=pages[request.page_token][0], next_page_token=pages[request.page_token][1]
    )
    assert moln("vm", "list", "-o", "name").out.split() == ["a", "b"]


def test_names_that_are_not_unique_are_printed_as_ids(api: CannedApi, moln: Moln) -> None:
    api.answers["ListVms"] = listed(vm(1, "web"), vm(2, "web"), vm(3, "db"))
    assert moln("vm", "list", "-o", "name").out.split() == ["1", "2", "db"]


def test_json_and_yaml_say_the_same_with_short_words_for_states(api: CannedApi, moln: Moln) -> None:
    api.answers["ListVms"] = listed(vm(7, "web"))
    as_json = json.loads(moln("vm", "list", "-o", "json").out)
    as_yaml = yaml.safe_load(moln("vm", "list", "-o", "yaml").out)
    assert as_json == as_yaml
    assert as_json[0]["view"]["state"] == "RUNNING"
    assert as_json[0]["spec"]["template"]["memory_mib"] == 2048


def test_credentials_and_the_last_revision_travel_as_metadata(api: CannedApi, moln: Moln) -> None:
    api.answers["ListVms"] = listed()
    api.revision = 41
    moln("vm", "list")
    moln("vm", "list")
    first, second = (call.metadata for call in api.asked)
    assert first["authorization"] == "Bearer secret-of-anna"
    assert "moln-min-revision" not in first
    assert second["moln-min-revision"] == "41"


def test_a_name_is_found_by_a_filtered_list_and_an_id_directly(api: CannedApi, moln: Moln) -> None:
    api.answers["ListVms"] = listed(vm(7, "web"), vm(8, "web-2"))
    api.answers["GetVm"] = lambda request: vm(request.id, "web")
    assert "VM       web (7)" in moln("vm", "show", "web").out
    assert "VM       web (9)" in moln("vm", "show", "9").out
    assert [request.filter for request in api.requests("ListVms")] == ["name=web"]


def test_an_unknown_name_exits_4(api: CannedApi, moln: Moln) -> None:
    api.answers["ListVms"] = listed()
    shown = moln("vm", "show", "web")
    assert (shown.code, shown.out) == (4, "")
    assert shown.err == "moln: there is no VM called web that you may see\n"


def test_an_unknown_id_exits_4_with_the_words_of_the_cloud(api: CannedApi, moln: Moln) -> None:
    api.answers["GetVm"] = MolnError(Reason.VM_NOT_FOUND, "VM 9: there is no such VM")
    shown = moln("vm", "show", "9")
    assert (shown.code, shown.err) == (4, "moln: VM 9: there is no such VM\n")


def test_an_ambiguous_name_exits_2_with_the_ids(api: CannedApi, moln: Moln) -> None:
    api.answers["ListVms"] = listed(vm(7, "web"), vm(12, "web"))
    shown = moln("vm", "poweroff", "web")
    assert shown.code == 2
    assert "7, 12" in shown.err


def test_a_pending_vm_is_shown_with_what_each_filter_left(api: CannedApi, moln: Moln) -> None:
    api.answers["GetVm"] = vm(7, "web", VmState.VM_STATE_PENDING, reason="NO_HOST_FITS", message="0 of 4 hosts fit")
    api.answers["ExplainVm"] = ExplainVmResponse(hosts=4, filters=[FilterResult(name="memory", hosts_left=0)])
    shown = moln("vm", "show", "7").out
    assert "NO_HOST_FITS: 0 of 4 hosts fit" in shown
    assert "0 left by memory" in shown


def test_image_alone_is_enough_to_create(api: CannedApi, moln: Moln) -> None:
    api.answers["CreateVm"] = lambda request: vm(1, "vm-1")
    shown = moln("vm", "create", "--image", "debian")
    request = api.requests("CreateVm")[0]
    assert shown.out == "created VM vm-1 (1)\n"
    assert request.template.memory_mib == 512
    assert [disk.image for disk in request.template.disks] == ["debian"]
    assert request.request_id


def test_flags_go_over_the_file(api: CannedApi, moln: Moln, folder: Path) -> None:
    (folder / "web.yaml").write_text(
        "vcpus: 2\nmemory_mib: 1G\nlabels: {tier: front, zone: a}\ndisks:\n- image: debian\n"
    )
    api.answers["CreateVm"] = lambda request: vm(1, "web")
    words = (
        "--memory",
        "4G",
        "--label",
        "zone=b",
        "--disk",
        "size=10G",
        "--net",
        "back",
        "--hold",
        "--restart",
        "never",
    )
    assert moln("vm", "create", "web", "-f", str(folder / "web.yaml"), *words).code == 0
    request = api.requests("CreateVm")[0]
    shape = request.template
    assert (shape.vcpus, shape.memory_mib, dict(shape.labels)) == (2, 4096, {"tier": "front", "zone": "b"})
    assert [(disk.image, disk.size_mib) for disk in shape.disks] == [("debian", 0), ("", 10240)]
    assert [nic.network for nic in shape.nics] == ["back"]
    assert request.is_held
    assert shape.restart_policy == RestartPolicy.RESTART_POLICY_NEVER


def test_policies_are_words_with_weights_and_stand_in_place_of_those_of_the_file(
    api: CannedApi, moln: Moln, folder: Path
) -> None:
    (folder / "web.yaml").write_text("memory_mib: 1G\npolicies:\n- policy: STRIPING\n  weight: 3\n")
    made = vm(1, "web")
    made.spec.template.policies.add(policy=PlacementPolicy.PLACEMENT_POLICY_LOAD_AWARE, weight=2)
    api.answers["CreateVm"] = api.answers["GetVm"] = made
    assert moln("vm", "create", "web", "-f", str(folder / "web.yaml")).code == 0
    flags = ("--policy", "packing", "--policy", "load-aware=2.5")
    assert moln("vm", "create", "web", "-f", str(folder / "web.yaml"), *flags).code == 0
    asked = [[(each.policy, each.weight) for each in request.template.policies] for request in api.requests("CreateVm")]
    assert asked == [[(2, 3.0)], [(1, 0.0), (3, 2.5)]]
    assert "load-aware=2" in moln("vm", "show", "1").out


@pytest.mark.parametrize(
    ("word", "problem"),
    [("paking", "there is no policy 'paking'"), ("packing=x", "'x' is no weight"), ("packing=-1", "must be above 0")],
)
def test_a_bad_policy_is_refused_before_anything_is_sent(moln: Moln, word: str, problem: str) -> None:
    shown = moln("vm", "create", "web", "--image", "debian", "--policy", word)
    assert (shown.code, problem in shown.err) == (2, True)


def test_an_unknown_key_of_a_template_is_named_with_line_and_nearest(moln: Moln, folder: Path) -> None:
    (folder / "web.yaml").write_text("vcpus: 2\nmemroy_mib: 1024\n")
    shown = moln("vm", "create", "-f", str(folder / "web.yaml"))
    assert shown.code == 2
    assert shown.err == f"moln: {folder}/web.yaml, line 2: unknown key 'memroy_mib' (did you mean 'memory_mib'?)\n"


def test_a_refused_field_is_shown_as_the_cloud_says_it(api: CannedApi, moln: Moln) -> None:
    problem = "expected a number, at column 15\n  FREE_MEMORY > & 3\n                ^"
    api.answers["CreateVm"] = invalid("template.requirement", problem, reason=Reason.EXPRESSION_INVALID)
    shown = moln("vm", "create", "--image", "debian", "--requirement", "FREE_MEMORY > & 3")
    assert shown.code == 2
    assert shown.err == f"moln: template.requirement: {problem}\n"


def test_an_attribute_that_no_host_has_is_warned_of(api: CannedApi, moln: Moln) -> None:
    made = vm(1, "vm-1")
    made.spec.template.requirement = "RAK = 1"
    api.answers["CreateVm"] = made
    api.answers["CheckExpression"] = CheckExpressionResponse(
        unknown_attributes=["RAK"], warnings=["no host has the attribute RAK; did you mean RACK?"]
    )
    shown = moln("vm", "create", "--image", "debian", "--requirement", "RAK = 1")
    assert shown.code == 0
    assert shown.err == "moln: warning: no host has the attribute RAK; did you mean RACK?\n"
    assert api.requests("CheckExpression")[0].requirement == "RAK = 1"
    shown = moln("vm", "create", "--image", "debian", "--dry-run")
    assert "no host has the attribute RAK" in shown.err


def test_many_are_created_in_batches_and_numbered(api: CannedApi, moln: Moln) -> None:
    ids = iter(range(1, 2000))
    api.answers["BatchCreateVms"] = lambda request: BatchCreateVmsResponse(
        results=[BatchCreateVmsResult(vm=vm(next(ids), item.name)) for item in request.requests]
    )
    shown = moln("vm", "create", "web", "--image", "debian", "--count", "1200")
    names = [item.name for request in api.requests("BatchCreateVms") for item in request.requests]
    assert shown.out == "created 1200 VMs, ids 1 to 1200\n"
    assert names[0] == "web-1"
    assert names[-1] == "web-1200"
    assert len(set(names)) == 1200


def test_what_was_refused_of_a_batch_is_said_once_for_each_kind(api: CannedApi, moln: Moln) -> None:
    refusal = Failure(code=8, reason="QUOTA_EXCEEDED", message="user anna may have 2 VMs")
    api.answers["BatchCreateVms"] = BatchCreateVmsResponse(
        results=[BatchCreateVmsResult(vm=vm(1, "web-1"))] + [BatchCreateVmsResult(failure=refusal)] * 2
    )
    shown = moln("vm", "create", "web", "--image", "debian", "--count", "3")
    assert shown.code == 5
    assert "created VM web-1 (1)" in shown.out
    assert "2 of 3 VMs were not created:\n  2 × QUOTA_EXCEEDED: user anna may have 2 VMs" in shown.err


def test_a_dry_run_creates_nothing_and_shows_a_template_that_can_be_used(api: CannedApi, moln: Moln) -> None:
    api.answers["CreateVm"] = lambda request: vm(0, "web")
    shown = moln("vm", "create", "web", "--image", "debian", "--dry-run")
    assert api.requests("CreateVm")[0].validate_only
    assert yaml.safe_load(shown.out)["memory_mib"] == 2048


def test_waiting_for_many_takes_one_watch(api: CannedApi, moln: Moln) -> None:
    made = [vm(1, "web-1", VmState.VM_STATE_PENDING), vm(2, "web-2", VmState.VM_STATE_PENDING)]
    api.answers["BatchCreateVms"] = BatchCreateVmsResponse(results=[BatchCreateVmsResult(vm=item) for item in made])
    api.answers["WatchVms"] = [
        WatchVmsResponse(vms=made, revision=5, is_synced=True),
        WatchVmsResponse(vms=[vm(1, "web-1")], revision=6),
        WatchVmsResponse(vms=[vm(2, "web-2")], revision=7),
    ]
    shown = moln("vm", "create", "web", "--image", "debian", "--count", "2", "--wait")
    assert (shown.code, shown.out.splitlines()[-1]) == (0, "all 2 run")
    assert len(api.requests("WatchVms")) == 1


def test_a_wait_that_takes_too_long_exits_3_with_the_reason(api: CannedApi, moln: Moln) -> None:
    api.answers["GetVm"] = vm(7, "web", VmState.VM_STATE_PENDING)
    words = "VM web (7) is PENDING, not RUNNING: NO_HOST_FITS: of 4 hosts, memory left 0"
    api.answers["WaitVm"] = MolnError(Reason.NOT_REACHED, words)
    shown = moln("vm", "wait", "7", "--timeout", "1s")
    assert (shown.code, shown.err) == (3, f"moln: {words}\n")
    assert api.requests("WaitVm")[0].state == VmState.VM_STATE_RUNNING


def test_waiting_for_the_end_of_a_vm_that_is_gone_is_no_error(api: CannedApi, moln: Moln) -> None:
    api.answers["ListVms"] = listed()
    assert moln("vm", "wait", "web", "--for", "done").code == 0


def test_terminate_is_refused_where_nobody_can_be_asked(api: CannedApi, moln: Moln) -> None:
    api.answers["ListVms"] = listed(vm(7, "web"))
    shown = moln("vm", "terminate", "web")
    assert shown.code == 2
    assert "--yes" in shown.err
    assert api.requests("TerminateVm") == []


def test_terminate_with_yes_does_it(api: CannedApi, moln: Moln) -> None:
    api.answers["ListVms"] = listed(vm(7, "web"))
    api.answers["TerminateVm"] = vm(7, "web", VmState.VM_STATE_TERMINATING)
    shown = moln("vm", "terminate", "web", "--yes", "--hard")
    assert (shown.code, shown.out) == (0, "VM web (7) is TERMINATING\n")
    assert api.requests("TerminateVm")[0].is_hard


def test_one_refusal_does_not_keep_the_others_from_it(api: CannedApi, moln: Moln) -> None:
    api.answers["ListVms"] = listed(vm(7, "web"), vm(8, "db"))
    api.answers["PoweroffVm"] = lambda request: (
        MolnError(Reason.STATE_FORBIDS, "a VM that is PENDING cannot be powered off")
        if request.id == 7
        else vm(8, "db")
    )
    shown = moln("vm", "poweroff", "web", "db")
    assert shown.code == 5
    assert "VM db (8) is RUNNING" in shown.out
    assert "VM web (7): a VM that is PENDING cannot be powered off" in shown.err


def test_labels_are_changed_by_mask_and_etag(api: CannedApi, moln: Moln) -> None:
    found = vm(7, "web", etag="33")
    found.spec.template.labels.update({"tier": "front", "old": "1"})
    api.answers["GetVm"] = found
    api.answers["UpdateVm"] = found
    assert moln("vm", "update", "7", "--label", "zone=a", "--label", "old=").code == 0
    request = api.requests("UpdateVm")[0]
    assert list(request.update_mask.paths) == ["template.labels"]
    assert dict(request.spec.template.labels) == {"tier": "front", "zone": "a"}
    assert request.etag == "33"


def test_the_console_log_is_printed_as_the_guest_wrote_it(api: CannedApi, moln: Moln) -> None:
    api.answers["GetVmConsoleLog"] = GetVmConsoleLogResponse(data=b"login: \n")
    assert moln("vm", "console", "7", "--log").out == "login: \n"


def test_a_watch_shows_the_list_and_then_each_change(api: CannedApi, moln: Moln) -> None:
    def watched(_: Any) -> Any:
        yield WatchVmsResponse(vms=[vm(7, "web")], revision=5, is_synced=True)
        yield WatchVmsResponse(vms=[vm(7, "web", VmState.VM_STATE_POWERED_OFF)], revision=6)
        yield WatchVmsResponse(vms=[Vm(id=7, view=VmView(state=VmState.VM_STATE_DONE))], revision=7)
        api.answers["WatchVms"] = MolnError(Reason.TOKEN_INVALID, "the token is not known any more")

    api.answers["WatchVms"] = watched
    shown = moln("vm", "list", "--watch")
    states = [line.split()[2] for line in shown.out.splitlines()[1:3]]
    assert states == ["RUNNING", "POWERED_OFF"]
    assert shown.out.splitlines()[3] == "7 is gone"
    assert (shown.code, api.requests("WatchVms")[-1].from_revision) == (5, 7)


def test_a_watch_starts_anew_when_its_revision_is_too_old(api: CannedApi, moln: Moln) -> None:
    rounds = iter([
        [WatchVmsResponse(vms=[vm(7, "web"), vm(8, "db")], revision=5, is_synced=True)],
        MolnError(Reason.REVISION_GONE, "revision 5 is too old"),
        [WatchVmsResponse(vms=[vm(8, "db")], revision=90, is_synced=True)],
        MolnError(Reason.TOKEN_INVALID, "over"),
    ])  # fmt: skip
    api.answers["WatchVms"] = lambda _: next(rounds)
    shown = moln("vm", "list", "--watch")
    assert [request.from_revision for request in api.requests("WatchVms")] == [0, 5, 0, 90]
    assert "7 is gone" in shown.out
