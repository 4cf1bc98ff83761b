"""`moln top` against canned answers."""

from __future__ import annotations

import json

from moln.operations.v1.monitoring_service_pb2 import USAGE_ORDER_MEMORY, HostUsage, Top, Usage, VmUsage
from tests.integration.cli.conftest import Moln
from tests.support.api import CannedApi

USAGE = Usage(cpu_percent=151.25, memory_bytes=3 << 30, disk_read_bytes_per_s=2048, net_receive_bytes_per_s=12)
TOP = Top(
    vms=[VmUsage(id=7, name="web", state="RUNNING", host="node-1", usage=USAGE, vcpus=2, memory_total_bytes=4 << 30)],
    hosts=[HostUsage(id=1, name="node-1", state="UP", usage=USAGE, cpus=8, memory_total_bytes=16 << 30, running_vms=1)],
    total_vms=12, missing=["the api at 10.0.0.9:2632 does not answer"],
)  # fmt: skip


def test_hosts_and_vms_are_shown_once_with_what_could_not_be_asked(api: CannedApi, moln: Moln) -> None:
    api.answers["WatchTop"] = [TOP, TOP]
    shown = moln("top", "--once")
    assert shown.code == 0
    assert "1 host: CPU 151% of 800, memory 3.0G/16.0G, 12 running VMs" in shown.out
    assert "not asked: the api at 10.0.0.9:2632 does not answer" in shown.out
    (vm,) = [line for line in shown.out.splitlines() if line.split()[:2] == ["7", "web"]]
    assert vm.split() == ["7", "web", "node-1", "RUNNING", "151.2", "2", "3.0G/4.0G", "2.0K", "0", "12B", "0"]
    assert shown.out.count("moln top") == 1


def test_the_order_the_host_and_the_interval_are_asked_for(api: CannedApi, moln: Moln) -> None:
    api.answers["WatchTop"] = [TOP]
    moln("top", "--once", "--sort", "memory", "--host", "3", "--interval", "2.5", "--lines", "5")
    (asked,) = api.requests("WatchTop")
    assert (asked.vms.order, asked.vms.host_id, asked.vms.page_size) == (USAGE_ORDER_MEMORY, 3, 5)
    assert asked.interval.ToMilliseconds() == 2500


def test_json_is_one_document(api: CannedApi, moln: Moln) -> None:
    api.answers["WatchTop"] = [TOP]
    document = json.loads(moln("top", "--once", "-o", "json").out)
    assert document["vms"][0]["name"] == "web"


def test_a_wrong_order_or_interval_is_wrong_usage(moln: Moln) -> None:
    assert moln("top", "--sort", "age").code == 2
    assert moln("top", "--interval", "0").code == 2
