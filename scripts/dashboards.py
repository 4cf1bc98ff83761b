"""Grafana's dashboards as code: the cloud, a host, a VM. `python -m scripts.dashboards` writes deploy/grafana/*.json.

Tables of panels, and the few functions that make dashboards of them. `--check` only says which files are out of date.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh

FOLDER = Path(__file__).resolve().parent.parent / "deploy" / "grafana"
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
STAT_WIDTH, GRAPH_WIDTH = 4, 12
STAT_HEIGHT, GRAPH_HEIGHT = 4, 8


@dataclass(frozen=True)
class Panel:
    """One panel: its title, unit (Grafana's word), and queries with the legend of each."""

    title: str
    unit: str
    queries: Sequence[tuple[str, str]]
    is_stat: bool = False
    about: str = ""


@dataclass(frozen=True)
class Board:
    """One dashboard: rows of panels, and variables by name with the query of their values."""

    uid: str
    title: str
    about: str
    rows: Mapping[str, Sequence[Panel]]
    variables: Mapping[str, str]


def _number(title: str, query: str, unit: str = "short", about: str = "") -> Panel:
    return Panel(title, unit, ((query, ""),), is_stat=True, about=about)


# Every process of the api counts all VMs and hosts: the largest of their answers is the cloud's, not the sum.
CLOUD = Board(
    "moln-cloud", "moln: cloud", "What there is, what waits, how services and the store do.",
    {
        "Now": (
            _number("Running VMs", 'max(moln_api_vms{state="RUNNING"}) or vector(0)'),
            _number("Waiting VMs", 'max(moln_api_vms{state="PENDING"}) or vector(0)'),
            _number("UNKNOWN or FAILED", 'sum(max by (state) (moln_api_vms{state=~"UNKNOWN|FAILED"})) or vector(0)'),
            _number("Hosts that are up", 'max(moln_api_hosts{state="UP"}) or vector(0)'),
            _number("Silent hosts", 'max(moln_api_hosts{state="SILENT"}) or vector(0)'),
            _number("Targets away", 'count(up{job="moln"} == 0) or vector(0)'),
        ),
        "VMs": (
            Panel("VMs by state", "short", (("max by (state) (moln_api_vms)", "{{state}}"),)),
            Panel("Transitions", "ops", (
                ("max by (state) (rate(moln_api_vm_transitions_total[5m]))", "{{state}}"),
            )),
            Panel("From creation to running", "s", (
                ("cloud:vm_start_seconds:p50_rate5m", "half of them"), ("cloud:vm_start_seconds:p99_rate5m", "99 %"),
            )),
            Panel("VMs that wait for a host, by reason", "short", (
                ("sum by (reason) (moln_scheduler_pending_vms) or vector(0)", "{{reason}}"),
            )),
            Panel("Time of waiting, by reason", "s", (
                ("max by (reason) (rate(moln_api_vm_pending_seconds_sum[5m]))", "{{reason}}"),
            ), about="Seconds of waiting that ended, per second."),
            Panel("Longest stay in a passing state", "s", (
                ("max by (state) (moln_api_oldest_unreconciled_seconds)", "{{state}}"),
            )),
        ),
        "Capacity": (
            Panel("CPU by host", "percentunit", (("host:cpu_busy:ratio_rate5m", "{{host}}"),)),
            Panel("Memory by host", "percentunit", (("host:memory_used:ratio", "{{host}}"),)),
            Panel("CPU by owner", "short", (("owner:cpu:cores_rate5m", "owner {{owner}}"),)),
            Panel("Memory by owner", "bytes", (("owner:memory_rss:bytes", "owner {{owner}}"),)),
            Panel("Room in datastores", "bytes", (
                ("min by (datastore) (moln_imagesvc_datastore_free_bytes)", "{{datastore}}"),
            )),
        ),
        "Services": (
            Panel("Calls", "reqps", (("sum by (service) (service:rpc_calls:rate5m)", "{{service}}"),)),
            Panel("Faults", "percentunit", (("service:rpc_faults:ratio_rate5m", "{{service}}"),)),
            Panel("Time of calls of the api, 99 %", "s", ((
                "histogram_quantile(0.99, sum by (le, method) (rate(moln_api_rpc_seconds_bucket[5m])))", "{{method}}",
            ),)),
            Panel("Time of one plan, 99 %", "s", ((
                "histogram_quantile(0.99, sum by (le) (rate(moln_scheduler_plan_seconds_bucket[5m])))", "plan",
            ),)),
            Panel("CPU of processes", "short", (
                ('sum by (service, instance) (rate(process_cpu_seconds_total{job="moln"}[5m]))', "{{service}}"),
            )),
            Panel("Memory of processes", "bytes", (
                ('process_resident_memory_bytes{job="moln"}', "{{service}} {{instance}}"),
            )),
        ),
        "Store": (
            Panel("Lag of the watch", "s", (
                ('{__name__=~"moln_.+_store_watch_lag_seconds"}', "{{service}} {{instance}}"),
            )),
            Panel("Margin of the lease", "s", (
                ('{__name__=~"moln_.+_store_lease_margin_seconds"}', "{{service}} {{instance}}"),
            )),
            Panel("Transactions in one batch, mean", "short", ((
                'sum by (service) (rate({__name__=~"moln_.+_store_batch_members_sum"}[5m])) / '
                'clamp_min(sum by (service) (rate({__name__=~"moln_.+_store_batch_members_count"}[5m])), 1e-9)',
                "{{service}}",
            ),)),
            Panel("Conflicts", "ops", (
                ('sum by (service) (rate({__name__=~"moln_.+_store_conflicts_total"}[5m]))', "{{service}}"),
            )),
        ),
    },
    {},
)  # fmt: skip

HOST = Board(
    "moln-host", "moln: host", "One host: the machine, its guests, its agent.",
    {
        "Machine": (
            Panel("CPU", "percentunit", (('host:cpu_busy:ratio_rate5m{host=~"$host"}', "{{host}}"),)),
            Panel("Memory", "bytes", (
                ('moln_host_memory_used_bytes{host=~"$host"}', "{{host}} used"),
                ('moln_host_memory_bytes{host=~"$host"}', "{{host}} all"),
            )),
            Panel("Disk for VMs", "bytes", (
                ('moln_host_disk_used_bytes{host=~"$host"}', "{{host}} used"),
                ('moln_host_disk_bytes{host=~"$host"}', "{{host}} all"),
            )),
            Panel("Load", "short", (('moln_host_load1{host=~"$host"}', "{{host}}"),)),
        ),
        "Guests": (
            Panel("Guests that run", "short", (
                ('count by (host) (libvirt_domain_info_vstate{host=~"$host"} == 1)', "{{host}}"),
            )),
            Panel("CPU, the ten busiest", "short", (('topk(10, vm:cpu:cores_rate5m{host=~"$host"})', "{{domain}}"),)),
            Panel("Memory, the ten largest", "bytes", (
                ('topk(10, libvirt_domain_memory_stats_rss_bytes{host=~"$host"})', "{{domain}}"),
            )),
            Panel("Disks", "Bps", (
                ('sum by (host) (vm:disk_read:bytes_rate5m{host=~"$host"})', "{{host}} read"),
                ('sum by (host) (vm:disk_write:bytes_rate5m{host=~"$host"})', "{{host}} written"),
            )),
            Panel("Networks", "Bps", (
                ('sum by (host) (vm:net_receive:bytes_rate5m{host=~"$host"})', "{{host}} received"),
                ('sum by (host) (vm:net_transmit:bytes_rate5m{host=~"$host"})', "{{host}} sent"),
            )),
        ),
        "Agents": (
            Panel("From an order to its running guest, 99 %", "s", ((
                "histogram_quantile(0.99, sum by (le, instance) "
                "(rate(moln_hostagent_order_to_running_seconds_bucket[5m])))", "{{instance}}",
            ),)),
            Panel("Time to ask a host for its load", "s", ((
                "sum by (instance) (rate(moln_hostagent_sweep_seconds_sum[5m])) / "
                "sum by (instance) (rate(moln_hostagent_sweep_seconds_count[5m]))", "{{instance}}",
            ),)),
            Panel("Deeds", "ops", (
                ("sum by (deed, result) (rate(moln_hostagent_deeds_total[5m]))", "{{deed}} {{result}}"),
            )),
            Panel("Whether agents are connected", "short", (("moln_hostagent_connected", "{{instance}}"),)),
        ),
    },
    {"host": "label_values(moln_host_cpus, host)"},
)  # fmt: skip

_DISK = 'sum by (domain, target_device) (rate(libvirt_domain_block_stats_{}_total{{domain=~"$domain"}}[5m]))'
_NIC = 'sum by (domain, target_device) (rate(libvirt_domain_interface_stats_{}_total{{domain=~"$domain"}}[5m]))'
VM = Board(
    "moln-vm", "moln: VM", "One VM, as its hypervisor sees it.",
    {
        "VM": (
            Panel("Who it is", "short", (
                ('moln_vm_info{domain=~"$domain"}', "VM {{vm}} {{name}} of owner {{owner}} on {{host}}"),
            ), about="The id of a VM and the name of its domain are joined by moln_vm_info."),
            Panel("State", "short", (('libvirt_domain_info_vstate{domain=~"$domain"}', "{{domain}}"),),
                  about="1 running, 3 paused, 5 off, 6 crashed."),
            Panel("CPU in cores", "short", (
                ('vm:cpu:cores_rate5m{domain=~"$domain"}', "{{domain}} used"),
                ('libvirt_domain_info_virtual_cpus{domain=~"$domain"}', "{{domain}} vCPUs"),
            )),
            Panel("Memory", "bytes", (
                ('libvirt_domain_memory_stats_rss_bytes{domain=~"$domain"}', "{{domain}} on the host"),
                ('libvirt_domain_info_memory_usage_bytes{domain=~"$domain"}', "{{domain}} given"),
                ('libvirt_domain_memory_stats_unused_bytes{domain=~"$domain"}', "{{domain}} untouched by the guest"),
            )),
        ),
        "Disks": (
            Panel("Bytes", "Bps", (
                (_DISK.format("read_bytes"), "{{target_device}} read"),
                (_DISK.format("write_bytes"), "{{target_device}} written"),
            )),
            Panel("Requests", "iops", (
                (_DISK.format("read_requests"), "{{target_device}} reads"),
                (_DISK.format("write_requests"), "{{target_device}} writes"),
            )),
            Panel("Room on the host", "bytes", (
                ('libvirt_domain_block_stats_allocation_bytes{domain=~"$domain"}', "{{target_device}} taken"),
                ('libvirt_domain_block_stats_capacity_bytes{domain=~"$domain"}', "{{target_device}} size"),
            )),
        ),
        "Networks": (
            Panel("Bytes", "Bps", (
                (_NIC.format("receive_bytes"), "{{target_device}} received"),
                (_NIC.format("transmit_bytes"), "{{target_device}} sent"),
            )),
            Panel("Packets", "pps", (
                (_NIC.format("receive_packets"), "{{target_device}} received"),
                (_NIC.format("transmit_packets"), "{{target_device}} sent"),
            )),
            Panel("Errors and drops", "pps", (
                (_NIC.format("receive_errors"), "{{target_device}} errors in"),
                (_NIC.format("receive_drops"), "{{target_device}} drops in"),
                (_NIC.format("transmit_errors"), "{{target_device}} errors out"),
                (_NIC.format("transmit_drops"), "{{target_device}} drops out"),
            )),
        ),
    },
    {"domain": "label_values(moln_vm_info, domain)"},
)  # fmt: skip
BOARDS: Mapping[str, Board] = {"cloud.json": CLOUD, "host.json": HOST, "vm.json": VM}


def panels(board: Board) -> Iterator[Panel]:
    """All panels of a dashboard."""
    for row in board.rows.values():
        yield from row


def document(board: Board) -> str:
    """The dashboard as Grafana imports it."""
    made = dashboard.Dashboard(board.title).uid(board.uid).description(board.about).tags(["moln"]).refresh("30s")
    made = made.time("now-1h", "now").with_variable(dashboard.DatasourceVariable("datasource").type("prometheus"))
    for name, query in board.variables.items():
        made = made.with_variable(
            dashboard.QueryVariable(name).datasource(SOURCE).query(query).refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(multi=True).include_all(include_all=True).all_value(".+")
        )  # fmt: skip
    for title, row in board.rows.items():
        made = made.with_row(dashboard.Row(title))
        for panel in row:
            made = made.with_panel(_panel(panel))
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


def _panel(panel: Panel) -> stat.Panel | timeseries.Panel:
    builder = stat.Panel if panel.is_stat else timeseries.Panel
    made = builder().title(panel.title).unit(panel.unit).description(panel.about).datasource(SOURCE)
    made = made.span(STAT_WIDTH).height(STAT_HEIGHT) if panel.is_stat else made.span(GRAPH_WIDTH).height(GRAPH_HEIGHT)
    for number, (query, legend) in enumerate(panel.queries):
        target = prometheus.Dataquery().expr(query).legend_format(legend).ref_id(chr(ord("A") + number))
        made = made.with_target(target)
    return made


def main(arguments: Sequence[str]) -> int:
    """Writes or checks the files; 1 where one is out of date."""
    stale = []
    for name, board in BOARDS.items():
        path, content = FOLDER / name, document(board)
        if path.exists() and path.read_text() == content:
            continue
        stale.append(name)
        if "--check" not in arguments:
            FOLDER.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
            print(f"deploy/grafana/{name} written")
    if stale and "--check" in arguments:
        print(f"not up to date: deploy/grafana: {', '.join(stale)}; run: python -m scripts.dashboards")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
