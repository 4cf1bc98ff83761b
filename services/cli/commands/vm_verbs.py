"""`moln vm poweroff|resume|suspend|stop|…`: what changes the state of VMs, now or at a time, and waits for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
from google.protobuf.message import Message

from moln.compute.v1 import vm_service_pb2 as pb
from moln.compute.v1.vm_pb2 import Vm, VmState
from services.cli.command_line import Command
from services.cli.exits import CliError, Exit, usage
from services.cli.moments import MOMENT, duration, stamp
from services.cli.options import SECONDS, Name, confirm, filter_option, yes_option
from services.cli.resources.hosts import HOSTS
from services.cli.resources.vms import VMS
from services.cli.session import Session
from services.cli.vm_acting import WAIT_SECONDS, WAITABLE, act, chosen, named, wait_if
from services.cli.waiting import wait_for_all

F = TypeVar("F", bound=Callable[..., Any])


def _verb_options(function: F) -> F:
    for option in (
        click.option("--timeout", type=SECONDS, default=WAIT_SECONDS, metavar="TIME", help="How long (default 2m)."),
        click.option("--wait", is_flag=True, help="Return when it is done."),
        click.option("--every", type=SECONDS, metavar="TIME", help="Again and again, for example 24h; with --at."),
        click.option("--at", "moment", type=MOMENT, metavar="TIME", help="Later: 18:30, 2026-12-24T18:30, or +2h."),
        filter_option("instead of names: label.tier=front"),
        click.argument("vms", type=Name("vm"), nargs=-1),
    ):
        function = option(function)
    return function


def _do(
    session: Session, verb: str, method: str, build: Callable[[Vm], Message], reached: VmState, flags: dict[str, Any],
    found: Sequence[Vm] | None = None,
) -> None:  # fmt: skip
    """Asks for a verb now, or schedules it."""
    vms = found if found is not None else chosen(session.client, flags["vms"], flags["condition"])
    if flags["moment"] is None and flags["every"] is None:
        act(session.client, method, [build(vm) for vm in vms], vms)
        wait_if(session.client, vms, reached, flags["timeout"] if flags["wait"] else 0)
        return
    if flags["moment"] is None or flags["wait"]:
        raise usage("--every goes with --at, the first time" if flags["moment"] is None else "--at does not wait")
    requests = []
    for vm in vms:
        request = pb.ScheduleVmVerbRequest(id=vm.id, verb=verb, time=stamp(flags["moment"]))
        request.is_hard = getattr(build(vm), "is_hard", False)
        if flags["every"]:
            request.interval.CopyFrom(duration(flags["every"]))
        requests.append(request)
    act(session.client, "ScheduleVmVerb", requests, vms, done=f"will {verb} at {stamp(flags['moment']).ToJsonString()}")


@click.command(
    "poweroff",
    cls=Command,
    examples="""
    moln vm poweroff web
    moln vm poweroff web db --hard --wait
    moln vm poweroff web --at 18:30 --every 24h
    """,
)
@_verb_options
@click.option(
    "--hard", is_flag=True, help="Pull the plug instead of asking the guest; of a suspended one, drop its memory."
)
@click.pass_obj
def poweroff(session: Session, /, hard: bool, **flags: Any) -> None:
    """Shuts guests down; host, addresses and disks stay reserved."""
    build = lambda vm: pb.PoweroffVmRequest(id=vm.id, is_hard=hard)  # noqa: E731  named by the argument it becomes
    _do(session, "poweroff", "PoweroffVm", build, VmState.VM_STATE_POWERED_OFF, flags)


@click.command(
    "resume",
    cls=Command,
    examples="""
    moln vm resume web --wait
    moln vm resume web --at 07:00 --every 24h
    """,
)
@_verb_options
@click.pass_obj
def resume(session: Session, /, **flags: Any) -> None:
    """Starts VMs again that are off, suspended, stopped or undeployed."""
    _do(session, "resume", "ResumeVm", lambda vm: pb.ResumeVmRequest(id=vm.id), VmState.VM_STATE_RUNNING, flags)


@click.command(
    "suspend",
    cls=Command,
    examples="""
    moln vm suspend web --wait
    """,
)
@_verb_options
@click.pass_obj
def suspend(session: Session, /, **flags: Any) -> None:
    """Saves guests' memory on their hosts; a resume goes on where they were. Room on the host stays reserved."""
    _do(session, "suspend", "SuspendVm", lambda vm: pb.SuspendVmRequest(id=vm.id), VmState.VM_STATE_SUSPENDED, flags)


@click.command(
    "stop",
    cls=Command,
    examples="""
    moln vm stop web --wait
    """,
)
@_verb_options
@click.pass_obj
def stop(session: Session, /, **flags: Any) -> None:
    """Saves memory and disks to the datastore and releases the hosts; a resume goes on elsewhere."""
    _do(session, "stop", "StopVm", lambda vm: pb.StopVmRequest(id=vm.id), VmState.VM_STATE_STOPPED, flags)


@click.command(
    "undeploy",
    cls=Command,
    examples="""
    moln vm undeploy web --wait
    """,
)
@_verb_options
@click.option("--hard", is_flag=True, help="Pull the plug instead of asking the guest.")
@click.pass_obj
def undeploy(session: Session, /, hard: bool, **flags: Any) -> None:
    """Shuts guests down, brings their disks to the datastore and releases the hosts."""
    build = lambda vm: pb.UndeployVmRequest(id=vm.id, is_hard=hard)  # noqa: E731  named by the argument it becomes
    _do(session, "undeploy", "UndeployVm", build, VmState.VM_STATE_UNDEPLOYED, flags)


@click.command(
    "terminate",
    cls=Command,
    examples="""
    moln vm terminate web
    moln vm terminate --filter 'label.tier=front' --hard --yes --wait
    """,
)
@_verb_options
@click.option("--hard", is_flag=True, help="Pull the plug instead of asking the guest first.")
@yes_option
@click.pass_obj
def terminate(session: Session, /, hard: bool, yes: bool, **flags: Any) -> None:
    """Ends VMs for good: destroys the guests, erases their disks, gives back their addresses."""
    found = chosen(session.client, flags["vms"], flags["condition"])
    confirm(f"Terminate {named(found)}? Their disks are erased.", yes=yes)
    build = lambda vm: pb.TerminateVmRequest(id=vm.id, is_hard=hard)  # noqa: E731  named by the argument it becomes
    _do(session, "terminate", "TerminateVm", build, VmState.VM_STATE_DONE, flags, found)


@click.command(
    "hold",
    cls=Command,
    examples="""
    moln vm hold web
    """,
)
@_verb_options
@click.pass_obj
def hold(session: Session, /, **flags: Any) -> None:
    """Holds pending VMs: they are not placed until released."""
    _do(session, "hold", "HoldVm", lambda vm: pb.HoldVmRequest(id=vm.id), VmState.VM_STATE_HELD, flags)


@click.command(
    "release",
    cls=Command,
    examples="""
    moln vm release web --wait
    """,
)
@_verb_options
@click.pass_obj
def release(session: Session, /, **flags: Any) -> None:
    """Releases held VMs to be placed."""
    _do(session, "release", "ReleaseVm", lambda vm: pb.ReleaseVmRequest(id=vm.id), VmState.VM_STATE_RUNNING, flags)


@click.command(
    "deploy",
    cls=Command,
    examples="""
    moln vm deploy web node-2 --wait
    """,
)
@click.argument("vm", type=Name("vm"))
@click.argument("host", type=Name("host"))
@click.option("--wait", is_flag=True, help="Return when it runs.")
@click.option("--timeout", type=SECONDS, default=WAIT_SECONDS, metavar="TIME", help="How long (default 2m).")
@click.pass_obj
def deploy(session: Session, vm: str, host: str, wait: bool, timeout: float) -> None:
    """Places a VM that has no host on this one, and on no other."""
    found = [VMS.find(session.client, vm)]
    host_id = HOSTS.id_of(session.client, host)
    act(session.client, "DeployVm", [pb.DeployVmRequest(id=found[0].id, host_id=host_id)], found)
    wait_if(session.client, found, VmState.VM_STATE_RUNNING, timeout if wait else 0)


_ACTIONS = {
    "retry": pb.RECOVER_ACTION_RETRY,
    "success": pb.RECOVER_ACTION_SUCCESS,
    "failure": pb.RECOVER_ACTION_FAILURE,
    "delete": pb.RECOVER_ACTION_DELETE,
}


@click.command(
    "recover",
    cls=Command,
    examples="""
    moln vm recover web
    moln vm recover web --as failure
    moln vm recover web --as delete --yes
    """,
)
@click.argument("vms", type=Name("vm"), nargs=-1)
@filter_option("instead of names: state=FAILED")
@click.option(
    "--as", "action", type=click.Choice(list(_ACTIONS)), default="retry", show_default=True,
    help="retry: at once · success: what was to be done was done by hand · failure: give up what is wanted · delete.",
)  # fmt: skip
@yes_option
@click.pass_obj
def recover(session: Session, vms: Sequence[str], condition: str, action: str, yes: bool) -> None:
    """Gets VMs out of what they are stuck in."""
    found = chosen(session.client, vms, condition)
    if action == "delete":
        confirm(f"Delete {named(found)}? Their disks are erased.", yes=yes)
    act(session.client, "RecoverVm", [pb.RecoverVmRequest(id=vm.id, action=_ACTIONS[action]) for vm in found], found)


@click.command(
    "wait",
    cls=Command,
    examples="""
    moln vm wait web
    moln vm wait web db --for powered-off --timeout 5m
    moln vm wait web --for done
    """,
)
@click.argument("vms", type=Name("vm"), nargs=-1)
@filter_option("instead of names: label.tier=front")
@click.option(
    "--for", "state", type=click.Choice(list(WAITABLE), case_sensitive=False), default="running", help="State."
)
@click.option("--timeout", type=SECONDS, default=WAIT_SECONDS, metavar="TIME", help="How long (default 2m).")
@click.pass_obj
def wait(session: Session, vms: Sequence[str], condition: str, state: str, timeout: float) -> None:
    """Waits until VMs are in a state (default: running). Exits 3, with the reason, when time is up."""
    wanted = WAITABLE[state]
    try:
        found = chosen(session.client, vms, condition)
    except CliError as err:
        if err.code is Exit.NOT_FOUND and wanted == VmState.VM_STATE_DONE:
            click.echo(f"{' '.join(vms)}: gone")
            return
        raise
    for vm in wait_for_all(session.client, found, wanted, timeout):
        click.echo(f"{VMS.title(vm)} is {state.upper().replace('-', '_')}")


COMMANDS = (
    poweroff, resume, suspend, stop, undeploy, terminate, hold, release, deploy, recover, wait,
)  # fmt: skip
