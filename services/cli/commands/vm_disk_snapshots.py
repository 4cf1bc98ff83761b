"""`moln vm disk-snapshot-create|revert|delete|list`."""

from __future__ import annotations

from typing import Any

import click

from moln.compute.v1 import vm_service_pb2 as pb
from services.cli.command_line import Command
from services.cli.exits import CliError, Exit
from services.cli.operating import ask, one_vm
from services.cli.options import Name, confirm, yes_option
from services.cli.resources.vms import VMS, disk_snapshots_of
from services.cli.session import Session
from services.cli.sizes import clock


@click.command(
    "disk-snapshot-create",
    cls=Command,
    examples="""
    moln vm disk-snapshot-create web 0 before-upgrade --wait
    """,
)
@one_vm
@click.argument("disk", type=click.IntRange(0))
@click.argument("name")
@click.pass_obj
def disk_snapshot_create(session: Session, /, vm: str, disk: int, name: str, **flags: Any) -> None:
    """Makes a snapshot of one disk, by its number. Under a running guest: as after a power cut, unless it is frozen."""
    build = lambda found: pb.CreateVmDiskSnapshotRequest(id=found.id, disk_id=disk, name=name)  # noqa: E731
    ask(session, vm, "CreateVmDiskSnapshot", build, flags)


@click.command(
    "disk-snapshot-revert",
    cls=Command,
    examples="""
    moln vm disk-snapshot-revert web 0 before-upgrade --yes --wait
    """,
)
@one_vm
@click.argument("disk", type=click.IntRange(0))
@click.argument("name")
@yes_option
@click.pass_obj
def disk_snapshot_revert(session: Session, /, vm: str, disk: int, name: str, yes: bool, **flags: Any) -> None:
    """Brings one disk of a VM that is off back to a snapshot: what was written to it since is lost."""
    confirm(f"Bring disk {disk} of {vm} back to {name}? What was written to it since is lost.", yes=yes)
    build = lambda found: pb.RevertVmDiskSnapshotRequest(id=found.id, disk_id=disk, name=name)  # noqa: E731
    ask(session, vm, "RevertVmDiskSnapshot", build, flags)


@click.command(
    "disk-snapshot-delete",
    cls=Command,
    examples="""
    moln vm disk-snapshot-delete web 0 before-upgrade --wait
    """,
)
@one_vm
@click.argument("disk", type=click.IntRange(0))
@click.argument("name")
@click.pass_obj
def disk_snapshot_delete(session: Session, /, vm: str, disk: int, name: str, **flags: Any) -> None:
    """Deletes a snapshot of one disk; the disk stays as it is."""
    build = lambda found: pb.DeleteVmDiskSnapshotRequest(id=found.id, disk_id=disk, name=name)  # noqa: E731
    ask(session, vm, "DeleteVmDiskSnapshot", build, flags)


@click.command(
    "disk-snapshot-list",
    cls=Command,
    examples="""
    moln vm disk-snapshot-list web
    moln vm disk-snapshot-list web 0
    """,
)
@click.argument("vm", type=Name("vm"))
@click.argument("disk", type=click.IntRange(0), required=False)
@click.pass_obj
def disk_snapshot_list(session: Session, vm: str, disk: int | None) -> None:
    """Shows the snapshots of the disks of a VM, or of one disk, oldest first."""
    found = VMS.find(session.client, vm)
    numbers = [each.disk_id for each in found.spec.template.disks]
    if disk is not None and disk not in numbers:
        known = f"it has {', '.join(map(str, numbers))}" if numbers else "it has none"
        raise CliError(f"{VMS.title(found)} has no disk {disk}; {known}", Exit.NOT_FOUND)
    for snapshot in disk_snapshots_of(found):
        if disk in (None, snapshot.disk_id):
            click.echo(f"disk {snapshot.disk_id}  {snapshot.name}  {clock(snapshot.time)}")


COMMANDS = (disk_snapshot_create, disk_snapshot_revert, disk_snapshot_delete, disk_snapshot_list)
