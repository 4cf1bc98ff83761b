"""Load of hosts and guests for Prometheus, from the newest sweeps. Names are those of the usual libvirt exporters.

Written as text at once, labels once for each guest and device: the client library takes 10 to 20 µs for a line, which
would hold up the agent for a quarter of a second at 500 guests. A guest that has gone is in no sweep, and so its series
end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from services.hostagent.core.guest import Guest
from services.hostagent.drivers.ports import HostIdentity
from services.hostagent.drivers.stats import DiskStats, GuestStats, NicStats, Sweep

Row = tuple[str, Any]
"""Labels as they are written, and what the value is read from."""
_NS = 1e9


class _Family(NamedTuple):
    name: str
    help: str
    kind: str
    labels: tuple[str, ...]
    value: Callable[..., float | None]


Value = Callable[..., float | None]


def counter_of(name: str, text: str, labels: Sequence[str], value: Value) -> _Family:
    """A counter that is read from a value with these labels; `_total` is added to its name."""
    return _Family(name, text, "counter", tuple(labels), value)


def gauge_of(name: str, text: str, labels: Sequence[str], value: Value) -> _Family:
    """A gauge that is read from a value with these labels."""
    return _Family(name, text, "gauge", tuple(labels), value)


def _cpu(guest: GuestStats) -> float | None:
    return None if guest.cpu_ns is None else guest.cpu_ns / _NS


GUEST: tuple[_Family, ...] = (
    gauge_of(
        "libvirt_domain_info_vstate",
        "State of the domain: 1 running, 3 paused, 5 off, 6 crashed.",
        ["domain", "host"],
        lambda g: g.state,
    ),
    counter_of(
        "libvirt_domain_info_cpu_time_seconds", "CPU time used by the domain, in seconds.", ["domain", "host"], _cpu
    ),
    gauge_of("libvirt_domain_info_virtual_cpus", "Virtual CPUs of the domain.", ["domain", "host"], lambda g: g.vcpus),
    gauge_of(
        "libvirt_domain_info_maximum_memory_bytes",
        "Most memory of the domain, in bytes.",
        ["domain", "host"],
        lambda g: g.memory_max,
    ),
    gauge_of(
        "libvirt_domain_info_memory_usage_bytes",
        "Memory given to the domain, in bytes.",
        ["domain", "host"],
        lambda g: g.memory_current,
    ),
    gauge_of(
        "libvirt_domain_memory_stats_actual_balloon_bytes",
        "Size of the balloon, in bytes.",
        ["domain", "host"],
        lambda g: g.memory_current,
    ),
    gauge_of(
        "libvirt_domain_memory_stats_rss_bytes",
        "Memory that the host spends on it, in bytes.",
        ["domain", "host"],
        lambda g: g.memory_rss,
    ),
    gauge_of(
        "libvirt_domain_memory_stats_available_bytes",
        "Memory that the guest sees, in bytes.",
        ["domain", "host"],
        lambda g: g.memory_available,
    ),
    gauge_of(
        "libvirt_domain_memory_stats_unused_bytes",
        "Memory that the guest has not touched, in bytes.",
        ["domain", "host"],
        lambda g: g.memory_unused,
    ),
    gauge_of(
        "libvirt_domain_memory_stats_usable_bytes",
        "Memory that the guest could give back, in bytes.",
        ["domain", "host"],
        lambda g: g.memory_usable,
    ),
)
DISK: tuple[_Family, ...] = (
    counter_of(
        "libvirt_domain_block_stats_read_bytes",
        "Bytes read from the block device.",
        ["domain", "host", "target_device"],
        lambda d: d.read_bytes,
    ),
    counter_of(
        "libvirt_domain_block_stats_read_requests",
        "Read requests to the block device.",
        ["domain", "host", "target_device"],
        lambda d: d.read_requests,
    ),
    counter_of(
        "libvirt_domain_block_stats_write_bytes",
        "Bytes written to the block device.",
        ["domain", "host", "target_device"],
        lambda d: d.write_bytes,
    ),
    counter_of(
        "libvirt_domain_block_stats_write_requests",
        "Write requests to the block device.",
        ["domain", "host", "target_device"],
        lambda d: d.write_requests,
    ),
    gauge_of(
        "libvirt_domain_block_stats_capacity_bytes",
        "Size of the block device, in bytes.",
        ["domain", "host", "target_device"],
        lambda d: d.capacity_bytes,
    ),
    gauge_of(
        "libvirt_domain_block_stats_allocation_bytes",
        "Room that it takes on the host, in bytes.",
        ["domain", "host", "target_device"],
        lambda d: d.allocation_bytes,
    ),
)
NIC: tuple[_Family, ...] = (
    counter_of(
        "libvirt_domain_interface_stats_receive_bytes",
        "Bytes received on the interface.",
        ["domain", "host", "target_device"],
        lambda n: n.receive_bytes,
    ),
    counter_of(
        "libvirt_domain_interface_stats_receive_packets",
        "Packets received on the interface.",
        ["domain", "host", "target_device"],
        lambda n: n.receive_packets,
    ),
    counter_of(
        "libvirt_domain_interface_stats_receive_errors",
        "Errors of receiving on the interface.",
        ["domain", "host", "target_device"],
        lambda n: n.receive_errors,
    ),
    counter_of(
        "libvirt_domain_interface_stats_receive_drops",
        "Drops of receiving on the interface.",
        ["domain", "host", "target_device"],
        lambda n: n.receive_drops,
    ),
    counter_of(
        "libvirt_domain_interface_stats_transmit_bytes",
        "Bytes sent on the interface.",
        ["domain", "host", "target_device"],
        lambda n: n.transmit_bytes,
    ),
    counter_of(
        "libvirt_domain_interface_stats_transmit_packets",
        "Packets sent on the interface.",
        ["domain", "host", "target_device"],
        lambda n: n.transmit_packets,
    ),
    counter_of(
        "libvirt_domain_interface_stats_transmit_errors",
        "Errors of sending on the interface.",
        ["domain", "host", "target_device"],
        lambda n: n.transmit_errors,
    ),
    counter_of(
        "libvirt_domain_interface_stats_transmit_drops",
        "Drops of sending on the interface.",
        ["domain", "host", "target_device"],
        lambda n: n.transmit_drops,
    ),
)
HOST: tuple[_Family, ...] = (
    gauge_of("moln_host_cpus", "CPUs of the host.", ["host"], lambda h: h.cpus),
    counter_of(
        "moln_host_cpu_busy_seconds",
        "CPU time in which processors worked, in seconds.",
        ["host"],
        lambda h: h.cpu_busy_s,
    ),
    gauge_of("moln_host_memory_bytes", "Memory of the host, in bytes.", ["host"], lambda h: h.memory_total),
    gauge_of("moln_host_memory_used_bytes", "Memory in use on the host, in bytes.", ["host"], lambda h: h.memory_used),
    gauge_of("moln_host_disk_bytes", "Size of the file system for VMs, in bytes.", ["host"], lambda h: h.disk_total),
    gauge_of("moln_host_disk_used_bytes", "Taken room of that file system, in bytes.", ["host"], lambda h: h.disk_used),
    gauge_of(
        "moln_host_load1", "Mean number of tasks that wanted to run in the last minute.", ["host"], lambda h: h.load1
    ),
)
INFO = gauge_of(
    "moln_vm_info", "Always 1: which VM of which owner a domain is.",
    ["domain", "host", "vm", "uid", "name", "owner"], lambda _: 1,
)  # fmt: skip
SWEPT = gauge_of(
    "moln_host_sample_timestamp_seconds", "When the host and its guests were looked at last, in Unix seconds.",
    ["host"], lambda sweep: sweep.time,
)  # fmt: skip
LEFT_OUT = gauge_of(
    "moln_host_unexported_vms", "VMs without series of their own: there are more than max_exported_vms.",
    ["host"], lambda number: number,
)  # fmt: skip


class LoadText:
    """Writes the newest sweeps as text. Of more guests than `most` only the first ones have series."""

    def __init__(
        self,
        sweeps: Callable[[], Iterable[tuple[int, Sweep]]],
        identities: Mapping[int, HostIdentity],
        guest_of: Callable[[int, int], Guest | None],
        *,
        most: int,
    ) -> None:
        self._sweeps, self._identities, self._guest_of, self._most = sweeps, identities, guest_of, most

    def render(self, *, is_openmetrics: bool) -> str:
        """All families, in either of Prometheus's formats, without OpenMetrics' last line."""
        sweeps: list[Row] = []
        guests: list[tuple[str, GuestStats]] = []
        infos: list[Row] = []
        left_out: list[Row] = []
        for host_id, sweep in self._sweeps():
            host = self._identities[host_id].name
            labels = _labels(host=host)
            shown = sweep.guests[: max(0, self._most - len(guests))]
            guests += [(_labels(domain=guest.domain, host=host), guest) for guest in shown]
            infos += [(_labels(**self._info(host_id, host, guest)), guest) for guest in shown]
            sweeps.append((labels, sweep))
            left_out.append((labels, len(sweep.guests) - len(shown)))
        hosts = [(labels, sweep.host) for labels, sweep in sweeps]
        disks, nics = list(_devices(guests, _disks)), list(_devices(guests, _nics))
        tables: tuple[tuple[Sequence[_Family], Sequence[Row]], ...] = (
            ((SWEPT,), sweeps), ((LEFT_OUT,), left_out), ((INFO,), infos), (HOST, hosts), (GUEST, guests),
            (DISK, disks), (NIC, nics),
        )  # fmt: skip
        return "".join(
            line for families, rows in tables for family in families for line in _family(family, rows, is_openmetrics)
        )

    def _info(self, host_id: int, host: str, guest: GuestStats) -> dict[str, str]:
        known = self._guest_of(host_id, guest.vm_id)
        order = known.order if known is not None else None
        return {
            "domain": guest.domain, "host": host, "vm": str(guest.vm_id), "uid": guest.uid,
            "name": order.spec.name if order is not None else "",
            "owner": str(order.intent.owner_id) if order is not None else "",
        }  # fmt: skip


def _disks(guest: GuestStats) -> Iterable[DiskStats | NicStats]:
    return guest.disks


def _nics(guest: GuestStats) -> Iterable[DiskStats | NicStats]:
    return guest.nics


def _devices(
    guests: Iterable[tuple[str, GuestStats]], of: Callable[[GuestStats], Iterable[DiskStats | NicStats]]
) -> Iterator[Row]:
    for labels, guest in guests:
        for device in of(guest):
            yield f'{labels[:-1]},target_device="{_escaped(device.device)}"}}', device


def _family(family: _Family, rows: Sequence[Row], is_openmetrics: bool) -> Iterator[str]:
    """A family without samples is left out: nothing is known of it."""
    name = f"{family.name}_total" if family.kind == "counter" else family.name
    value = family.value
    lines = [f"{name}{labels} {number!r}\n" for labels, stats in rows if (number := value(stats)) is not None]
    if lines:
        shown = family.name if is_openmetrics else name
        yield f"# HELP {shown} {family.help}\n# TYPE {shown} {family.kind}\n"
        yield from lines


def _labels(**labels: str) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(text: str) -> str:
    if text.isalnum():
        return text
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
