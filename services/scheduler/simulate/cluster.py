"""The hosts of a simulation, from a CSV file, as the scheduler sees real ones: by the same reading of their parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from moln.compute.v1 import host_pb2
from services.common.domain.errors import MolnError
from services.common.resources.labels import check_labels
from services.scheduler.core.amounts import MOST
from services.scheduler.core.hosts import DEFAULT_CLUSTER, HostFacts, facts
from services.scheduler.simulate.bad_input import BadInput
from services.scheduler.simulate.tables import Row, rows

NEEDED = ("host", "cpu", "memory_mib")
COLUMNS = (*NEEDED, "disk_mib", "rack", "labels")
MOST_CPUS = 1_000_000
_CONNECTED = host_pb2.HostLiveness(state=host_pb2.LIVENESS_STATE_CONNECTED)


def read_hosts(path: Path) -> Sequence[HostFacts]:
    """The hosts in the order of the file, which is that of their ids. Raises BadInput."""
    found: dict[str, HostFacts] = {}
    for row in rows(path, NEEDED, COLUMNS):
        name = row.text("host")
        if not name:
            row.refuse("host", "is empty; a name is expected")
        if name in found:
            row.refuse("host", f"'{name}' is there twice")
        found[name] = _host(row, len(found) + 1)
    if not found:
        raise BadInput(f"{path}: no host is in it")
    return list(found.values())


def _host(row: Row, host_id: int) -> HostFacts:
    spec = host_pb2.HostSpec(name=row.text("host"), labels=_labels(row))
    inventory = host_pb2.HostInventory(
        cpus=row.whole("cpu", 1, MOST_CPUS),
        memory_mib=row.whole("memory_mib", 0, MOST >> 10),
        disk_mib=row.whole("disk_mib", 0, MOST, 0),
    )
    return _facts(host_id, spec, inventory)


def _facts(host_id: int, spec: host_pb2.HostSpec, inventory: host_pb2.HostInventory) -> HostFacts:
    return facts(host_id, spec, inventory, _CONNECTED, DEFAULT_CLUSTER)


def _labels(row: Row) -> dict[str, str]:
    """`key=value` several times, with spaces or semicolons between; the rack is the label `rack`."""
    labels = {"rack": row.text("rack")} if row.text("rack") else {}
    for word in row.text("labels").replace(";", " ").split():
        key, sign, value = word.partition("=")
        if not sign:
            row.refuse("labels", f"'{word}' is no label; key=value is expected")
        if key in labels:
            row.refuse("labels", f"'{key}' is there twice")
        labels[key] = value
    try:
        check_labels("labels", labels)
    except MolnError as err:
        row.refuse("labels", err.message.removeprefix("labels: "))
    return labels
