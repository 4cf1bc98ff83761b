"""Load for Prometheus: the usual exporters' names, guests that go with their series, and a bound for their number."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from moln.node.v1.node_service_pb2 import VmOrder
from services.hostagent.core.guest import Guest
from services.hostagent.drivers.ports import HostIdentity
from services.hostagent.drivers.stats import DiskStats, GuestStats, HostStats, NicStats, Sweep
from services.hostagent.exposition import LoadText

HOST = HostStats(cpus=4, cpu_busy_s=12.5, memory_total=1 << 30, memory_used=1 << 29, load1=0.5)
IDENTITIES = {1: HostIdentity(1, "host-1", "node-1", "secret")}


def guest(vm_id: int) -> GuestStats:
    return GuestStats(
        vm_id, f"uid-{vm_id}", f"moln-{vm_id}", 1, is_active=True, cpu_ns=2_500_000_000, vcpus=2, memory_rss=77,
        disks=[DiskStats("vda", 1, 2, 3, 4)], nics=[NicStats("vnet0", 5, 6, 7, 8, 9, 10, 11, 12)],
    )  # fmt: skip


class Exported:
    """A registry over sweeps that a test changes."""

    def __init__(self, guests: Sequence[GuestStats], most: int = 100) -> None:
        self.guests = guests
        known = Guest(1, 7)
        known.order = VmOrder()
        known.order.spec.name, known.order.intent.owner_id = 'we"b', 3
        guests_of = {(1, 7): known}
        self.text = LoadText(
            lambda: [(1, Sweep(1e9, 0.1, HOST, self.guests))], IDENTITIES,
            lambda host, vm: guests_of.get((host, vm)), most=most,
        )  # fmt: skip

    def rendered(self) -> str:
        return self.text.render(is_openmetrics=False)

    def value(self, metric: str, **labels: str) -> float | None:
        wanted = {"host": "node-1", **labels}
        for family in text_string_to_metric_families(self.rendered()):
            for sample in family.samples:
                if (sample.name, sample.labels) == (metric, wanted):
                    return sample.value
        return None


def test_a_guest_has_the_series_that_dashboards_for_libvirt_ask_for() -> None:
    exported = Exported([guest(7)])
    domain = {"domain": "moln-7"}
    assert exported.value("libvirt_domain_info_cpu_time_seconds_total", **domain) == 2.5
    assert exported.value("libvirt_domain_info_vstate", **domain) == 1
    assert exported.value("libvirt_domain_info_virtual_cpus", **domain) == 2
    assert exported.value("libvirt_domain_memory_stats_rss_bytes", **domain) == 77
    disk, nic = {**domain, "target_device": "vda"}, {**domain, "target_device": "vnet0"}
    assert exported.value("libvirt_domain_block_stats_write_requests_total", **disk) == 4
    assert exported.value("libvirt_domain_interface_stats_receive_bytes_total", **nic) == 5
    assert exported.value("libvirt_domain_interface_stats_transmit_drops_total", **nic) == 12
    assert exported.value("moln_vm_info", **domain, vm="7", uid="uid-7", name='we"b', owner="3") == 1
    assert exported.value("moln_host_cpu_busy_seconds_total") == 12.5


def test_what_the_hypervisor_does_not_tell_has_no_series() -> None:
    exported = Exported([guest(7)])
    assert exported.value("libvirt_domain_memory_stats_unused_bytes", domain="moln-7") is None
    assert exported.value("moln_host_disk_bytes") is None


def test_the_series_of_a_guest_end_with_it() -> None:
    exported = Exported([guest(7), guest(8)])
    assert exported.value("libvirt_domain_info_virtual_cpus", domain="moln-8") == 2
    exported.guests = [guest(7)]
    assert "moln-8" not in exported.rendered()


def test_of_too_many_guests_the_rest_is_counted_and_not_shown() -> None:
    exported = Exported([guest(number) for number in range(1, 8)], most=5)
    assert exported.value("moln_host_unexported_vms") == 2
    assert exported.rendered().count("\nlibvirt_domain_info_vstate{") == 5


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed: apt-get install prometheus")
def test_promtool_finds_no_fault_with_it() -> None:
    text = Exported([guest(7), guest(8)]).rendered().encode()
    found = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (found.returncode, found.stdout + found.stderr) == (0, b"")


def test_openmetrics_reads_the_same() -> None:
    exported = Exported([guest(7)])
    families = {family.name: family for family in openmetrics(exported.text.render(is_openmetrics=True) + "# EOF\n")}  # type: ignore[no-untyped-call]
    assert families["libvirt_domain_info_cpu_time_seconds"].type == "counter"
    assert families["libvirt_domain_info_cpu_time_seconds"].samples[0].value == 2.5
