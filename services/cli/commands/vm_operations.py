"""`moln vm migrate|attach-disk|resize|snapshot-create|…`: operations on VMs, and what becomes of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from moln.compute.v1 import vm_service_pb2 as pb
from moln.compute.v1.template_pb2 import Context, DiskTemplate, NicTemplate
from moln.compute.v1.vm_pb2 import MoveStall, Vm, VmSize
from services.cli.command_line import Command
from services.cli.exits import CliError, Exit, usage
from services.cli.operating import ask, ended, follow, one_vm, results_of, wait_options, word_of
from services.cli.options import SIZE, Name, confirm, file_bytes, filter_option, output_option, yes_option
from services.cli.printing import fields, print_document
from services.cli.resources.hosts import HOSTS
from services.cli.resources.vms import VMS, state_of
from services.cli.session import Session
from services.cli.sizes import clock
from services.cli.templates import read_pairs, read_yaml
from services.cli.vm_acting import act, chosen

_STALLS = {"abort": MoveStall.MOVE_STALL_ABORT, "pause": MoveStall.MOVE_STALL_PAUSE,
           "postcopy": MoveStall.MOVE_STALL_POSTCOPY}  # fmt: skip


@click.command(
    "reboot",
    cls=Command,
    examples="""
    moln vm reboot web
    moln vm reboot web db --hard --wait
    """,
)
@click.argument("vms", type=Name("vm"), nargs=-1)
@filter_option("instead of names: label.tier=front")
@wait_options
@click.option("--hard", is_flag=True, help="Reset the guest instead of asking it.")
@click.pass_obj
def reboot(session: Session, /, vms: Sequence[str], condition: str, hard: bool, **flags: Any) -> None:
    """Reboots guests."""
    found = chosen(session.client, vms, condition)
    requests = [pb.RebootVmRequest(id=vm.id, is_hard=hard) for vm in found]
    follow(session, act(session.client, "RebootVm", requests, found, "is asked to reboot"), flags)


@click.command(
    "migrate",
    cls=Command,
    examples="""
    moln vm migrate web node-2 --wait
    moln vm migrate web --mode save --wait
    moln vm migrate web node-2 --mode live --bandwidth 100 --on-stall postcopy
    """,
)
@one_vm
@click.argument("host", type=Name("host"), required=False)
@click.option("--mode", type=click.Choice(("live", "save", "cold")), help="Default: the best that is possible.")
@click.option("--bandwidth", type=click.IntRange(0, 2**20), default=0, help="Upper limit in MiB/s.")
@click.option("--on-stall", type=click.Choice(list(_STALLS)), default="abort", show_default=True,
              help="What to do with a live migration that does not converge.")  # fmt: skip
@click.pass_obj
def migrate(
    session: Session, /, vm: str, host: str | None, mode: str | None, bandwidth: int, on_stall: str, **flags: Any
) -> None:
    """Moves a VM to another host, or to the one that suits it best. It stays where it is when that fails."""
    host_id = HOSTS.id_of(session.client, host) if host else 0
    ask(session, vm, "MigrateVm", lambda found: pb.MigrateVmRequest(
        id=found.id, host_id=host_id, mode=mode or "", bandwidth_mib_per_s=bandwidth, on_stall=_STALLS[on_stall]
    ), flags)  # fmt: skip


@click.command(
    "resched",
    cls=Command,
    examples="""
    moln vm resched web db --wait
    """,
)
@click.argument("vms", type=Name("vm"), nargs=-1)
@filter_option("instead of names: host=node-1")
@wait_options
@click.pass_obj
def resched(session: Session, /, vms: Sequence[str], condition: str, **flags: Any) -> None:
    """Has VMs moved to the hosts that suit them best now, other than their own."""
    found = chosen(session.client, vms, condition)
    requests = [pb.ReschedVmRequest(id=vm.id) for vm in found]
    follow(session, act(session.client, "ReschedVm", requests, found, "is asked to move"), flags)


@click.command(
    "attach-disk",
    cls=Command,
    examples="""
    moln vm attach-disk web size=10G --wait
    moln vm attach-disk web image=data,bus=scsi
    """,
)
@one_vm
@click.argument("disk", metavar="DISK")
@click.pass_obj
def attach_disk(session: Session, /, vm: str, disk: str, **flags: Any) -> None:
    """Adds a disk: image=NAME, or size=10G for an empty one; further keys as in a template."""
    wanted = read_pairs(disk, DiskTemplate, "disk", bare="image", aliases={"size": "size_mib"})
    ask(session, vm, "AttachVmDisk", lambda found: pb.AttachVmDiskRequest(id=found.id, disk=wanted), flags)


@click.command(
    "detach-disk",
    cls=Command,
    examples="""
    moln vm detach-disk web 1 --yes --wait
    """,
)
@one_vm
@click.argument("disk", type=click.IntRange(0))
@yes_option
@click.pass_obj
def detach_disk(session: Session, /, vm: str, disk: int, yes: bool, **flags: Any) -> None:
    """Removes a disk by its number (see: moln vm show), and erases what is on it, its snapshots too."""
    confirm(f"Detach disk {disk} of {vm}? What is on it is erased.", yes=yes)
    ask(session, vm, "DetachVmDisk", lambda found: pb.DetachVmDiskRequest(id=found.id, disk_id=disk), flags)


@click.command(
    "attach-nic",
    cls=Command,
    examples="""
    moln vm attach-nic web back --wait
    moln vm attach-nic web network=back,ipv4=10.9.0.7
    """,
)
@one_vm
@click.argument("nic", metavar="NETWORK")
@click.pass_obj
def attach_nic(session: Session, /, vm: str, nic: str, **flags: Any) -> None:
    """Adds an interface on a network; further keys as in a template."""
    wanted = read_pairs(nic, NicTemplate, "interface", bare="network", aliases={})
    ask(session, vm, "AttachVmNic", lambda found: pb.AttachVmNicRequest(id=found.id, nic=wanted), flags)


@click.command(
    "detach-nic",
    cls=Command,
    examples="""
    moln vm detach-nic web 1 --wait
    """,
)
@one_vm
@click.argument("nic", type=click.IntRange(0))
@click.pass_obj
def detach_nic(session: Session, /, vm: str, nic: int, **flags: Any) -> None:
    """Removes an interface by its number (see: moln vm show), and gives its address back."""
    ask(session, vm, "DetachVmNic", lambda found: pb.DetachVmNicRequest(id=found.id, nic_id=nic), flags)


@click.command(
    "resize",
    cls=Command,
    examples="""
    moln vm resize web --memory 4G --vcpus 2 --wait
    """,
)
@one_vm
@click.option("--vcpus", type=click.IntRange(1, 512), help="Virtual CPUs.")
@click.option("--cpu-percent", type=click.IntRange(1, 51_200), help="Share of one core, in percent.")
@click.option("--memory", type=SIZE, help="Memory, for example 4G.")
@click.pass_obj
def resize(
    session: Session, /, vm: str, vcpus: int | None, cpu_percent: int | None, memory: int | None, **flags: Any
) -> None:
    """Changes CPU and memory: at once where the guest allows it, else at its next start."""
    size = VmSize(vcpus=vcpus or 0, cpu_percent=cpu_percent or 0, memory_mib=memory or 0)
    if size == VmSize():
        raise usage("nothing to change: give --vcpus, --cpu-percent or --memory")
    ask(session, vm, "ResizeVm", lambda found: pb.ResizeVmRequest(id=found.id, size=size), flags)


@click.command(
    "resize-disk",
    cls=Command,
    examples="""
    moln vm resize-disk web 0 20G --wait
    """,
)
@one_vm
@click.argument("disk", type=click.IntRange(0))
@click.argument("size", type=SIZE)
@click.pass_obj
def resize_disk(session: Session, /, vm: str, disk: int, size: int, **flags: Any) -> None:
    """Makes a disk larger; disks only grow."""
    build = lambda found: pb.ResizeVmDiskRequest(id=found.id, disk_id=disk, size_mib=size)  # noqa: E731
    ask(session, vm, "ResizeVmDisk", build, flags)


@click.command(
    "save-disk",
    cls=Command,
    examples="""
    moln vm save-disk web 0 web-golden --wait
    """,
)
@one_vm
@click.argument("disk", type=click.IntRange(0))
@click.argument("image")
@click.pass_obj
def save_disk(session: Session, /, vm: str, disk: int, image: str, **flags: Any) -> None:
    """Saves a disk as a new image, in the background."""
    build = lambda found: pb.SaveVmDiskRequest(id=found.id, disk_id=disk, image_name=image)  # noqa: E731
    ask(session, vm, "SaveVmDisk", build, flags)


@click.command(
    "context",
    cls=Command,
    examples="""
    moln vm context web --file context.yaml --wait
    """,
)
@one_vm
@click.option("--file", "-f", "path", required=True, metavar="FILE", help="YAML, as `context` of a template.")
@click.pass_obj
def context(session: Session, /, vm: str, path: str, **flags: Any) -> None:
    """Replaces the context: what a running guest finds on its context disk, and what the next start brings."""
    wanted = read_yaml(file_bytes(path, "file").decode(errors="replace"), Context, Path(path).name)
    ask(session, vm, "UpdateVmContext", lambda found: pb.UpdateVmContextRequest(id=found.id, context=wanted), flags)


@click.command(
    "operation",
    cls=Command,
    examples="""
    moln vm operation web
    moln vm operation web --wait
    moln vm operation web 6f1c9a52-… -o json
    """,
)
@click.argument("vm", type=Name("vm"))
@click.argument("operation", required=False, default="")
@wait_options
@output_option(("text", "json", "yaml"))
@click.pass_obj
def operation(session: Session, /, vm: str, operation: str, output: str, **flags: Any) -> None:
    """Shows an operation of a VM (default: the newest): how far it is, or how it ended."""
    known = VMS.find(session.client, vm)
    if flags["wait"]:
        found = ended(session, known, operation, flags["timeout"])
    else:
        request = pb.GetVmOperationRequest(id=known.id, operation_id=operation)
        found = session.client.unary(VMS.path("GetVmOperation"), request, pb.VmOperation)
    if output != "text":
        print_document(found, output)
        return
    for line in fields(_operation_fields(found, results_of(session, known, found))):
        click.echo(line)


def _operation_fields(found: pb.VmOperation, results: str) -> Sequence[tuple[str, object]]:
    how = "in flight" if not found.is_done else "failed" if found.reason else "done"
    return (
        ("operation", found.id),
        ("what", word_of(found.kind)),
        ("state", f"{how}, {found.progress_percent} %" if not found.is_done else how),
        ("reason", ": ".join(filter(None, (found.reason, found.message)))),
        ("results", results),
        ("asked for", clock(found.create_time) if found.create_time.seconds else ""),
        ("ended", clock(found.end_time) if found.end_time.seconds else ""),
        ("until", clock(found.deadline) if found.deadline.seconds and not found.is_done else ""),
        ("cancelled", "yes" if found.is_cancelled and not found.is_done else ""),
    )


@click.command(
    "cancel",
    cls=Command,
    examples="""
    moln vm cancel web
    """,
)
@click.argument("vm", type=Name("vm"))
@click.argument("operation", required=False, default="")
@click.pass_obj
def cancel(session: Session, vm: str, operation: str) -> None:
    """Asks for an operation in flight to be given up (default: the exclusive one)."""
    number = VMS.id_of(session.client, vm)
    request = pb.CancelVmOperationRequest(id=number, operation_id=operation)
    after = session.client.unary(VMS.path("CancelVmOperation"), request, Vm)
    click.echo(f"{VMS.title(after)} is {state_of(after)}; see: moln vm operation {after.id}")


@click.command(
    "scheduled",
    cls=Command,
    examples="""
    moln vm scheduled web
    """,
)
@click.argument("vm", type=Name("vm"))
@click.pass_obj
def scheduled(session: Session, vm: str) -> None:
    """Shows the verbs that are scheduled for a VM (`--at`, `--every` of a verb make them)."""
    for row in VMS.find(session.client, vm).intent.scheduled:
        every = f"  every {row.interval.seconds} s" if row.HasField("interval") else ""
        said = f"  last: {row.last_reason}: {row.last_message}" if row.last_reason else ""
        verb = f"{row.verb}{' --hard' if row.is_hard else ''}"
        click.echo(f"{row.id}  {verb}  {clock(row.time)}{every}  by {row.cause.actor}{said}")


@click.command(
    "unschedule",
    cls=Command,
    examples="""
    moln vm unschedule web 1
    """,
)
@click.argument("vm", type=Name("vm"))
@click.argument("number", type=click.IntRange(1))
@click.pass_obj
def unschedule(session: Session, vm: str, number: int) -> None:
    """Takes a scheduled verb back, by its number."""
    found = VMS.find(session.client, vm)
    if all(row.id != number for row in found.intent.scheduled):
        problem = f"{VMS.title(found)} has no scheduled verb {number}; see: moln vm scheduled {vm}"
        raise CliError(problem, Exit.NOT_FOUND)
    request = pb.UnscheduleVmVerbRequest(id=found.id, scheduled_id=number)
    click.echo(f"{VMS.title(session.client.unary(VMS.path('UnscheduleVmVerb'), request, Vm))} is changed")


COMMANDS = (
    reboot, migrate, resched, attach_disk, detach_disk, attach_nic, detach_nic, resize, resize_disk, save_disk, context,
    operation, cancel, scheduled, unschedule,
)  # fmt: skip
