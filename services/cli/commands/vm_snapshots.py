"""`moln vm snapshot-create|revert|delete|list`."""

from __future__ import annotations

from typing import Any

import click

from moln.compute.v1 import vm_service_pb2 as pb
from services.cli.command_line import Command
from services.cli.operating import ask, one_vm
from services.cli.options import Name, confirm, yes_option
from services.cli.resources.vms import VMS
from services.cli.session import Session
from services.cli.sizes import clock


@click.command(
    "snapshot-create",
    cls=Command,
    examples="""
    moln vm snapshot-create web before-upgrade --wait
    """,
)
@one_vm
@click.argument("name")
@click.pass_obj
def snapshot_create(session: Session, /, vm: str, name: str, **flags: Any) -> None:
    """Makes a snapshot of all disks, with the guest's memory where it runs."""
    ask(session, vm, "CreateVmSnapshot", lambda found: pb.CreateVmSnapshotRequest(id=found.id, name=name), flags)


@click.command(
    "snapshot-revert",
    cls=Command,
    examples="""
    moln vm snapshot-revert web before-upgrade --yes --wait
    """,
)
@one_vm
@click.argument("name")
@yes_option
@click.pass_obj
def snapshot_revert(session: Session, /, vm: str, name: str, yes: bool, **flags: Any) -> None:
    """Goes back to a snapshot: what came after it is lost."""
    confirm(f"Revert {vm} to {name}? What came after it is lost.", yes=yes)
    ask(session, vm, "RevertVmSnapshot", lambda found: pb.RevertVmSnapshotRequest(id=found.id, name=name), flags)


@click.command(
    "snapshot-delete",
    cls=Command,
    examples="""
    moln vm snapshot-delete web before-upgrade --wait
    """,
)
@one_vm
@click.argument("name")
@click.pass_obj
def snapshot_delete(session: Session, /, vm: str, name: str, **flags: Any) -> None:
    """Deletes a snapshot; the VM stays as it is."""
    ask(session, vm, "DeleteVmSnapshot", lambda found: pb.DeleteVmSnapshotRequest(id=found.id, name=name), flags)


@click.command(
    "snapshot-list",
    cls=Command,
    examples="""
    moln vm snapshot-list web
    """,
)
@click.argument("vm", type=Name("vm"))
@click.pass_obj
def snapshot_list(session: Session, vm: str) -> None:
    """Shows the snapshots of a VM, oldest first; * is where it is."""
    found = VMS.find(session.client, vm)
    for status in found.statuses:
        for snapshot in status.snapshots if status.host_id == found.placement.host_id else ():
            mark, kind = "*" if snapshot.is_current else " ", "with memory" if snapshot.has_memory else "disks"
            parent = f"  from {snapshot.parent}" if snapshot.parent else ""
            click.echo(f"{mark} {snapshot.name}  {clock(snapshot.time)}  {kind}{parent}")


COMMANDS = (snapshot_create, snapshot_revert, snapshot_delete, snapshot_list)
