"""What is left on hosts that are drained, and why."""

from __future__ import annotations

from collections.abc import Iterator

from moln.compute.v1.host_pb2 import Host
from services.cli.client import Client
from services.cli.resources.vms import VMS

MOST_SHOWN = 5


def stuck(client: Client, host: Host) -> list[str]:
    """What the scheduler says of VMs that have nowhere to go; only the first few are named."""
    if not host.view.drain_left:
        return []
    said = list(_said(client, host))
    more = [f"and {len(said) - MOST_SHOWN} more"] if len(said) > MOST_SHOWN else []
    return [*said[:MOST_SHOWN], *more]


def _said(client: Client, host: Host) -> Iterator[str]:
    for vm in VMS.list(client, f"host={host.id}"):
        refusal = vm.placement.refusal
        if refusal.reason and not refusal.id:
            yield f"{VMS.title(vm)}: {refusal.message}"
