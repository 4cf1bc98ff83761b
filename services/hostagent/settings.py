"""The agent's settings. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from services.common.obs.logs import LogFormat, LogLevel
from services.common.runtime import option
from services.common.runtime.service import log_format_option, log_level_option, metrics_address_option

METRICS_PORT = 9640


@dataclass(frozen=True)
class Settings:
    """Where the agent keeps its state, whom it talks to, which hypervisor it drives."""

    state_dir: Path = option(Path("moln-node"), "Folder of the node's secret, its VMs' disks and its cache.")
    api_addresses: tuple[str, ...] = option((), "Addresses host:port of the cloud's node gateways; kept once joined.")
    join_token: str = option("", "One-time token that `moln host create` printed; needed once.", secret=True)
    hosts_file: Path | None = option(None, "File of the hosts that this agent carries; empty: host.json in state_dir.")
    driver: Literal["libvirt", "sim"] = option("libvirt", "What runs the guests: libvirt or sim.")
    on_stop: Literal["keep", "poweroff"] = option(
        "keep", "What becomes of running guests when the agent is stopped: keep, or poweroff (and start at the next)."
    )
    stop_grace_s: float = option(20.0, "Longest time that guests have to shut down at the agent's stop.", unit="s")
    tls_authority: Path | None = option(None, "PEM file of the gateway's authority; needed off loopback.")
    tls_certificate: Path | None = option(None, "PEM file of this node's certificate.")
    tls_key: Path | None = option(None, "PEM file of its key.")
    watchdog_device: Path | None = option(
        None, "The machine's watchdog, /dev/watchdog; empty: a host that is cut off does not reset itself."
    )
    watchdog_timeout_s: int = option(20, "Time after which an unfed watchdog resets the machine.", unit="s")
    self_fence_s: int = option(
        40, "Longest time from the last acknowledged heartbeat to that reset: what the cloud may rely on.", unit="s"
    )
    sample_interval_s: float = option(30.0, "Time between samples of the hosts' load.", unit="s")
    stats_interval_s: float = option(10.0, "Time between samples of guests, for `top` and Prometheus.", unit="s")
    max_exported_vms: int = option(2000, "Most VMs that have series of their own in Prometheus.")
    metrics_advertise: str = option("", "Address of `metrics_address` as Prometheus sees it; empty: the same.")
    max_deeds: int = option(4, "How many guests are started or stopped at the same time (libvirt).")
    libvirt_uri: str = option("qemu:///system", "The hypervisor: qemu:///system, qemu:///session, test:///default …")
    libvirt_type: Literal["auto", "kvm", "qemu"] = option(
        "auto", "What runs guests: kvm, qemu (emulated, slow), or auto: found out by booting a tiny one."
    )
    pci_devices: tuple[str, ...] = option(
        (), "PCI devices of the host that guests may be given: addresses, vendor:device or vendor. Empty: none."
    )
    data_listen: str = option("", "Where other nodes fetch disks of VMs that move to them; empty: nowhere.")
    data_advertise: str = option("", "Address of `data_listen` as other nodes see it; empty: the one it listens on.")
    migration_uri: str = option(
        "", "Where other hypervisors reach this one for live migration: qemu+tls://HOST/system …; empty: nowhere."
    )
    sim_cpus: int = option(16, "CPUs of a simulated host.")
    sim_memory_mib: int = option(65536, "Memory of a simulated host.", unit="MiB")
    sim_disk_mib: int = option(1_000_000, "Disk of a simulated host.", unit="MiB")
    sim_start_latency_s: float = option(0.0, "How long a simulated guest takes to start.", unit="s")
    sim_start_jitter_s: float = option(0.0, "Random time added to it, from 0 to this.", unit="s")
    sim_start_failure_rate: float = option(0.0, "Share of simulated starts that fail, 0 to 1.")
    sim_start_stall_rate: float = option(0.0, "Share of simulated starts that take sim_stall_s longer, 0 to 1.")
    sim_stall_s: float = option(60.0, "How much longer.", unit="s")
    sim_stop_latency_s: float = option(0.0, "How long a simulated guest takes to shut down.", unit="s")
    sim_ignore_acpi: bool = option(False, "Simulated guests do not listen to a shutdown.")
    sim_crash_rate_per_min: float = option(0.0, "Share of simulated guests that crash in a minute, 0 to 1.")
    sim_vanish_rate_per_min: float = option(0.0, "Share of them that vanish in a minute, without an event, 0 to 1.")
    sim_deed_latency_s: float = option(0.0, "How long other simulated deeds take: to suspend, to move …", unit="s")
    sim_deed_failure_rate: float = option(0.0, "Share of those that fail, 0 to 1.")
    sim_deed_stall_rate: float = option(0.0, "Share of those that take sim_stall_s longer, 0 to 1.")
    sim_lie_rate: float = option(0.0, "Share of simulated deeds that are said to be done and are not, 0 to 1.")
    log_format: LogFormat = log_format_option()
    log_level: LogLevel = log_level_option()
    metrics_address: str = metrics_address_option(METRICS_PORT)

    @property
    def identity_file(self) -> Path:
        """Where the hosts and their secrets stand."""
        return self.hosts_file or self.state_dir / "host.json"
