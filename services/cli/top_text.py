"""What `moln top` shows of hosts and VMs. Knows columns; prints nothing."""

from __future__ import annotations

from moln.operations.v1.monitoring_service_pb2 import HostUsage, Top, Usage, VmUsage
from services.cli.sizes import clock
from services.cli.tables import Column
from services.common.domain.words import counted

_UNITS = ("B", "K", "M", "G", "T", "P")
_BIG = 1000.0


def amount(value: float) -> str:
    """Bytes in at most five characters: `0`, `812B`, `1.5M`, `973G`."""
    if value < 1:
        return "0"
    for unit in _UNITS:
        if value < _BIG or unit == _UNITS[-1]:
            return f"{value:.0f}{unit}" if unit == "B" or value >= 100 else f"{value:.1f}{unit}"
        value /= 1024
    return ""


def _rate(usage: Usage, *names: str) -> str:
    return amount(sum(getattr(usage, name) for name in names))


def _of(part: float, whole: float) -> str:
    return f"{amount(part)}/{amount(whole)}" if whole else amount(part)


def _percent(has_usage: bool, value: float) -> str:
    return f"{value:.1f}" if has_usage else ""


HOST_COLUMNS: tuple[Column[HostUsage], ...] = (
    Column("HOST", lambda host: host.name),
    Column("STATE", lambda host: host.state, is_state=True),
    Column("VMS", lambda host: str(host.running_vms), is_number=True),
    Column("CPU%", lambda host: _percent(host.HasField("usage"), host.usage.cpu_percent), is_number=True),
    Column("OF", lambda host: str(100 * host.cpus) if host.cpus else "", is_number=True),
    Column("MEMORY", lambda host: _of(host.usage.memory_bytes, host.memory_total_bytes), is_number=True),
    Column("READ/S", lambda host: _rate(host.usage, "disk_read_bytes_per_s"), is_number=True),
    Column("WRITE/S", lambda host: _rate(host.usage, "disk_write_bytes_per_s"), is_number=True),
    Column("RX/S", lambda host: _rate(host.usage, "net_receive_bytes_per_s"), is_number=True),
    Column("TX/S", lambda host: _rate(host.usage, "net_transmit_bytes_per_s"), is_number=True),
    Column("DISK", lambda host: _of(host.disk_used_bytes, host.disk_total_bytes), is_number=True),
)
VM_COLUMNS: tuple[Column[VmUsage], ...] = (
    Column("ID", lambda vm: str(vm.id), is_number=True),
    Column("VM", lambda vm: vm.name),
    Column("HOST", lambda vm: vm.host),
    Column("STATE", lambda vm: vm.state, is_state=True),
    Column("CPU%", lambda vm: _percent(vm.HasField("usage"), vm.usage.cpu_percent), is_number=True),
    Column("VCPUS", lambda vm: str(vm.vcpus or ""), is_number=True),
    Column("MEMORY", lambda vm: _of(vm.usage.memory_bytes, vm.memory_total_bytes), is_number=True),
    Column("READ/S", lambda vm: _rate(vm.usage, "disk_read_bytes_per_s"), is_number=True),
    Column("WRITE/S", lambda vm: _rate(vm.usage, "disk_write_bytes_per_s"), is_number=True),
    Column("RX/S", lambda vm: _rate(vm.usage, "net_receive_bytes_per_s"), is_number=True),
    Column("TX/S", lambda vm: _rate(vm.usage, "net_transmit_bytes_per_s"), is_number=True),
)


def summary(top: Top) -> str:
    """One line over both tables."""
    parts = [f"moln top {clock(top.time)}"]
    if top.hosts:
        busy = sum(host.usage.cpu_percent for host in top.hosts)
        memory = sum(host.usage.memory_bytes for host in top.hosts)
        whole = sum(host.memory_total_bytes for host in top.hosts)
        parts.append(
            f"{counted(len(top.hosts), 'host')}: CPU {busy:.0f}% of {100 * sum(host.cpus for host in top.hosts)}"
        )
        parts.append(f"memory {_of(memory, whole)}")
    parts.append(f"{top.total_vms} running VMs")
    return ", ".join(parts)
