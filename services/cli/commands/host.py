"""`moln host`: hosts that VMs are placed on. What is done with machines as a whole is in host_modes.py."""

from __future__ import annotations

import uuid
from collections.abc import MutableMapping, Sequence

import click
from google.protobuf.field_mask_pb2 import FieldMask

from moln.compute.v1.host_pb2 import Host
from moln.compute.v1.host_service_pb2 import (
    CreateHostRequest,
    CreateHostResponse,
    CreateJoinTokenRequest,
    CreateJoinTokenResponse,
    DeleteHostRequest,
    DeleteHostResponse,
    DisableHostRequest,
    EnableHostRequest,
    UpdateHostRequest,
)
from services.cli.command_line import Group
from services.cli.commands import host_guests, host_modes
from services.cli.drains import stuck
from services.cli.exits import usage
from services.cli.host_text import host_lines, join_lines
from services.cli.options import (
    KEY_VALUE,
    SIZE,
    Name,
    confirm,
    filter_option,
    list_options,
    output_option,
    yes_option,
)
from services.cli.printing import list_objects, print_document, print_object
from services.cli.resources.clusters import CLUSTERS
from services.cli.resources.hosts import HOSTS, state_of
from services.cli.session import Session

DELETE_SECONDS = 60.0


@click.group("host", cls=Group)
def command() -> None:
    """Hosts that virtual machines are placed on."""


@command.command(
    "create",
    examples="""
    moln host create node-7
    moln host create node-7 --cluster gpu --label rack=b
    """,
)
@click.argument("name")
@click.option("--cluster", type=Name("cluster"), help="Its cluster (default: the default one).")
@click.option("--label", type=KEY_VALUE, multiple=True, metavar="KEY=VALUE", help="Label, LABEL_<KEY> in requirements.")
@click.option("--taint", multiple=True, help="VMs stay off unless they tolerate it; may be repeated.")
@click.option("--setting", type=KEY_VALUE, multiple=True, metavar="KEY=VALUE", help="Setting of the driver.")
@output_option(("text", "json", "yaml"))
@click.pass_obj
def create_host(
    session: Session, name: str, cluster: str | None, label: Sequence[tuple[str, str]], taint: Sequence[str],
    setting: Sequence[tuple[str, str]], output: str,
) -> None:  # fmt: skip
    """Creates a host and prints the command with which the node joins (its token works once)."""
    request = CreateHostRequest(
        name=name, labels=dict(label), taints=taint, settings=dict(setting), request_id=str(uuid.uuid4()),
        cluster_id=CLUSTERS.id_of(session.client, cluster) if cluster else 0,
    )  # fmt: skip
    answer = session.client.unary(HOSTS.path("CreateHost"), request, CreateHostResponse)
    if output != "text":
        print_document(answer, output)
        return
    click.echo(f"created {HOSTS.title(answer.host)}; on the node, run:")
    for line in join_lines(answer.join_token, answer.node_address, answer.join_token_expire_time):
        click.echo(line)


@command.command(
    "token",
    examples="""
    moln host token node-7
    """,
)
@click.argument("host", type=Name("host"))
@click.pass_obj
def new_token(session: Session, host: str) -> None:
    """Makes a new join token, for a node that has lost its secret; a former token is refused from now on."""
    found = HOSTS.find(session.client, host)
    request = CreateJoinTokenRequest(id=found.id)
    answer = session.client.unary(HOSTS.path("CreateJoinToken"), request, CreateJoinTokenResponse)
    click.echo(f"on the node of {HOSTS.title(found)}, run:")
    for line in join_lines(answer.join_token, answer.node_address, answer.join_token_expire_time):
        click.echo(line)


@command.command(
    "list",
    examples="""
    moln host list
    moln host list --filter 'state=UP cluster=default' -o wide
    moln host list --watch
    """,
)
@filter_option("state=UP cluster=default name=node-*")
@list_options
@click.pass_obj
def list_hosts(session: Session, condition: str, output: str, watch: bool) -> None:
    """Shows the hosts and what of them is given out."""
    list_objects(session, HOSTS, output=output, condition=condition, watch=watch)


@command.command(
    "show",
    examples="""
    moln host show node-1
    """,
)
@click.argument("host", type=Name("host"))
@output_option()
@click.pass_obj
def show_host(session: Session, host: str, output: str) -> None:
    """Shows one host: what it has, what is given out, what is less than it could be."""
    found = HOSTS.find(session.client, host)
    print_object(HOSTS, found, output, host_lines(found, stuck(session.client, found)))


@command.command(
    "update",
    examples="""
    moln host update node-1 --label rack=b --memory-overcommit 150
    moln host update node-1 --label rack=
    moln host update node-1 --fence-command ipmi --parameter address=bmc-1
    """,
)
@click.argument("host", type=Name("host"))
@click.option("--label", type=KEY_VALUE, multiple=True, metavar="KEY=VALUE", help="Label to set; KEY= removes it.")
@click.option("--taint", multiple=True, help="All taints, in place of the former ones.")
@click.option("--no-taints", is_flag=True, help="No taints any more.")
@click.option("--cpu-overcommit", type=click.IntRange(1), help="CPU to give out, in percent of what is there.")
@click.option("--memory-overcommit", type=click.IntRange(1), help="Memory to give out, in percent of what is there.")
@click.option("--reserved-memory", type=SIZE, help="Memory that is never given out.")
@click.option("--fence-command", help="Script that makes certain that the machine is off; '' for none.")
@click.option("--power-command", help="Script that switches the machine on and off; '' for none.")
@click.option("--parameter", type=KEY_VALUE, multiple=True, metavar="KEY=VALUE", help="For both; KEY= removes it.")
@click.option("--fence-automatically/--no-fence-automatically", default=None, help="Fence as soon as it is silent.")
@click.pass_obj
def update_host(
    session: Session, host: str, label: Sequence[tuple[str, str]], taint: Sequence[str], no_taints: bool,
    cpu_overcommit: int | None, memory_overcommit: int | None, reserved_memory: int | None,
    fence_command: str | None, power_command: str | None, parameter: Sequence[tuple[str, str]],
    fence_automatically: bool | None,
) -> None:  # fmt: skip
    """Changes labels, taints, overcommit, reserved memory, the scripts that fence and switch it.

    Scripts are names in the folder of the api's setting host_script_folder.
    """
    found = HOSTS.find(session.client, host)
    request = UpdateHostRequest(id=found.id, spec=found.spec, etag=found.view.etag, update_mask=FieldMask())
    _merge(request.spec.labels, label)
    _merge(request.spec.script_parameters, parameter)
    if taint or no_taints:
        request.spec.ClearField("taints")
        request.spec.taints.extend(taint)
    request.spec.cpu_overcommit_percent = cpu_overcommit or request.spec.cpu_overcommit_percent
    request.spec.memory_overcommit_percent = memory_overcommit or request.spec.memory_overcommit_percent
    if reserved_memory is not None:
        request.spec.reserved_memory_mib = reserved_memory
    request.spec.fence_command = request.spec.fence_command if fence_command is None else fence_command
    request.spec.power_command = request.spec.power_command if power_command is None else power_command
    request.spec.fences_automatically = bool(fence_automatically)
    changed = {
        "fence_command": fence_command is not None, "power_command": power_command is not None,
        "script_parameters": bool(parameter), "fences_automatically": fence_automatically is not None,
        "labels": bool(label), "taints": bool(taint or no_taints), "cpu_overcommit_percent": cpu_overcommit,
        "memory_overcommit_percent": memory_overcommit, "reserved_memory_mib": reserved_memory is not None,
    }  # fmt: skip
    request.update_mask.paths.extend(path for path, is_set in changed.items() if is_set)
    if not request.update_mask.paths:
        raise usage("nothing to change: see `moln host update --help`")
    click.echo(f"changed {HOSTS.title(session.client.unary(HOSTS.path('UpdateHost'), request, Host))}")


def _merge(held: MutableMapping[str, str], given: Sequence[tuple[str, str]]) -> None:
    """An empty value removes."""
    for key, value in given:
        if value:
            held[key] = value
        else:
            held.pop(key, None)


@command.command(
    "enable",
    examples="""
    moln host enable node-1
    """,
)
@click.argument("hosts", type=Name("host"), nargs=-1, required=True)
@click.pass_obj
def enable_hosts(session: Session, hosts: Sequence[str]) -> None:
    """Lets VMs be placed on hosts."""
    for found in HOSTS.find_all(session.client, hosts):
        host = session.client.unary(HOSTS.path("EnableHost"), EnableHostRequest(id=found.id), Host)
        click.echo(f"{HOSTS.title(host)} is {state_of(host)}")


@command.command(
    "disable",
    examples="""
    moln host disable node-1
    """,
)
@click.argument("hosts", type=Name("host"), nargs=-1, required=True)
@click.pass_obj
def disable_hosts(session: Session, hosts: Sequence[str]) -> None:
    """Places nothing new on hosts; what runs goes on."""
    for found in HOSTS.find_all(session.client, hosts):
        host = session.client.unary(HOSTS.path("DisableHost"), DisableHostRequest(id=found.id), Host)
        click.echo(f"{HOSTS.title(host)} is {state_of(host)}")


@command.command(
    "delete",
    examples="""
    moln host delete node-7
    moln host delete node-7 --lost
    """,
)
@click.argument("hosts", type=Name("host"), nargs=-1, required=True)
@click.option("--lost", is_flag=True, help="It is fenced and never comes back: what is left on it is given up.")
@yes_option
@click.pass_obj
def delete_hosts(session: Session, hosts: Sequence[str], lost: bool, yes: bool) -> None:
    """Deletes hosts on which no VM is placed."""
    found = HOSTS.find_all(session.client, hosts)
    given_up = " and give up what is left on them" if lost else ""
    confirm(f"Delete {', '.join(map(HOSTS.title, found))}{given_up}?", yes=yes)
    for host in found:
        request = DeleteHostRequest(id=host.id, is_lost=lost)
        session.client.unary(HOSTS.path("DeleteHost"), request, DeleteHostResponse, seconds=DELETE_SECONDS)
        click.echo(f"deleted {HOSTS.title(host)}")


for added in (*host_modes.COMMANDS, *host_guests.COMMANDS):
    command.add_command(added)
