"""`moln user`: users, their tokens and limits."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
from google.protobuf.field_mask_pb2 import FieldMask

from moln.common.v1.common_pb2 import Amounts
from moln.iam.v1.user_pb2 import Role, User
from moln.iam.v1.user_service_pb2 import (
    CreateTokenRequest,
    CreateTokenResponse,
    CreateUserRequest,
    CreateUserResponse,
    DeleteUserRequest,
    DeleteUserResponse,
    SetPasswordRequest,
    SetPasswordResponse,
    UpdateUserRequest,
    WhoAmIRequest,
)
from services.cli.command_line import Group
from services.cli.exits import usage
from services.cli.options import SIZE, Name, confirm, list_options, output_option, yes_option
from services.cli.printing import fields, list_objects, print_object
from services.cli.resources.users import USERS, role_of
from services.cli.session import Session
from services.cli.sizes import clock, mib

F = TypeVar("F", bound=Callable[..., Any])
CAPABILITIES = ("vm.exec", "vm.raw", "host.path", "pci")
_ROLES = {"admin": Role.ROLE_ADMIN, "user": Role.ROLE_USER}


def _limit_options(function: F) -> F:
    for option in (
        click.option("--max-disk", type=SIZE, help="Limit of disk; 0 is none."),
        click.option("--max-memory", type=SIZE, help="Limit of memory; 0 is none."),
        click.option("--max-vcpus", type=click.IntRange(0), help="Limit of virtual CPUs; 0 is none."),
        click.option("--max-vms", type=click.IntRange(0), help="Limit of VMs; 0 is none."),
        click.option("--capability", type=click.Choice(CAPABILITIES), multiple=True, help="May be repeated."),
    ):
        function = option(function)
    return function


@click.group("user", cls=Group)
def command() -> None:
    """Users, their tokens and limits."""


@command.command(
    "create",
    examples="""
    moln user create anna --max-vms 20 --max-memory 64G
    moln user create root2 --admin
    """,
)
@click.argument("name")
@click.option("--admin", is_flag=True, help="An administrator.")
@_limit_options
@click.pass_obj
def create_user(session: Session, /, name: str, admin: bool, capability: Sequence[str], **limits: int | None) -> None:
    """Creates a user and prints a first token, once."""
    request = CreateUserRequest(
        name=name, role=_ROLES["admin" if admin else "user"], capabilities=capability, request_id=str(uuid.uuid4()),
        limits=_changed_limits(Amounts(), limits),
    )  # fmt: skip
    answer = session.client.unary(USERS.path("CreateUser"), request, CreateUserResponse)
    click.echo(f"created {USERS.title(answer.user)}; the token is shown once:", err=True)
    click.echo(answer.token)


def _changed_limits(limits: Amounts, given: dict[str, int | None]) -> Amounts:
    """The limits with those that were given: `max_memory` sets `memory_mib`."""
    names = {"max_vms": "vms", "max_vcpus": "vcpus", "max_memory": "memory_mib", "max_disk": "disk_mib"}
    for option, value in given.items():
        if value is not None:
            setattr(limits, names[option], value)
    return limits


@command.command(
    "list",
    examples="""
    moln user list
    """,
)
@list_options
@click.pass_obj
def list_users(session: Session, output: str, watch: bool) -> None:
    """Shows the users, and what they take of their limits."""
    list_objects(session, USERS, output=output, watch=watch)


@command.command(
    "show",
    examples="""
    moln user show anna
    moln user show
    """,
)
@click.argument("user", type=Name("user"), required=False)
@output_option()
@click.pass_obj
def show_user(session: Session, user: str | None, output: str) -> None:
    """Shows one user; without a name, yourself."""
    if user is None:
        found = session.client.unary(USERS.path("WhoAmI"), WhoAmIRequest(), User)
    else:
        found = USERS.find(session.client, user)
    print_object(USERS, found, output, _user_lines(found))


def _user_lines(user: User) -> list[str]:
    used, limits = user.usage, user.spec.limits
    return fields(
        (
            ("user", f"{user.spec.name} ({user.id})"),
            ("role", role_of(user)),
            ("capabilities", " ".join(user.spec.capabilities)),
            ("vms", f"{used.vms} of {limits.vms or 'any number'}"),
            ("vcpus", f"{used.vcpus} of {limits.vcpus or 'any number'}"),
            ("memory", f"{mib(used.memory_mib)} of {mib(limits.memory_mib) if limits.memory_mib else 'any size'}"),
            ("disk", f"{mib(used.disk_mib)} of {mib(limits.disk_mib) if limits.disk_mib else 'any size'}"),
            ("created", clock(user.spec.create_time)),
        )
    )


@command.command(
    "update",
    examples="""
    moln user update anna --max-vms 50
    moln user update anna --capability host.path --capability pci
    moln user update anna --no-capabilities
    """,
)
@click.argument("user", type=Name("user"))
@click.option("--role", type=click.Choice(list(_ROLES)), help="New role.")
@click.option("--no-capabilities", is_flag=True, help="Take all capabilities away.")
@_limit_options
@click.pass_obj
def update_user(
    session: Session, /, user: str, role: str | None, no_capabilities: bool, capability: Sequence[str],
    **limits: int | None,
) -> None:  # fmt: skip
    """Changes role, capabilities (all that are given, in place of the former) or limits."""
    found = USERS.find(session.client, user)
    request = UpdateUserRequest(id=found.id, spec=found.spec, etag=found.etag, update_mask=FieldMask())
    if role is not None:
        request.spec.role = _ROLES[role]
        request.update_mask.paths.append("role")
    if capability or no_capabilities:
        request.spec.ClearField("capabilities")
        request.spec.capabilities.extend(capability)
        request.update_mask.paths.append("capabilities")
    if any(value is not None for value in limits.values()):
        _changed_limits(request.spec.limits, limits)
        request.update_mask.paths.append("limits")
    if not request.update_mask.paths:
        raise usage("nothing to change: see `moln user update --help`")
    click.echo(f"changed {USERS.title(session.client.unary(USERS.path('UpdateUser'), request, User))}")


@command.command(
    "token",
    examples="""
    moln user token anna > anna.token
    moln user token anna --sole
    """,
)
@click.argument("user", type=Name("user"))
@click.option("--sole", is_flag=True, help="End all former tokens.")
@click.pass_obj
def new_token(session: Session, user: str, sole: bool) -> None:
    """Prints a new token, once."""
    request = CreateTokenRequest(id=USERS.id_of(session.client, user), is_sole=sole)
    click.echo(session.client.unary(USERS.path("CreateToken"), request, CreateTokenResponse).token)


@command.command(
    "password",
    examples="""
    moln user password anna
    echo "$PASSWORD" | moln user password anna --stdin
    moln user password anna --remove
    """,
)
@click.argument("user", type=Name("user"))
@click.option("--stdin", "from_stdin", is_flag=True, help="Read it from standard input instead of asking.")
@click.option("--remove", is_flag=True, help="No password any more.")
@click.pass_obj
def set_password(session: Session, user: str, from_stdin: bool, remove: bool) -> None:
    """Sets or removes a password. It is asked for, or read from standard input: never an argument."""
    number = USERS.id_of(session.client, user)
    password = "" if remove else _password(from_stdin)
    session.client.unary(
        USERS.path("SetPassword"), SetPasswordRequest(id=number, password=password), SetPasswordResponse
    )
    click.echo("the password is removed" if remove else "the password is set")


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\n")
    if not sys.stdin.isatty():
        raise usage("nobody can be asked for the password here: give it on standard input, with --stdin")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))


@command.command(
    "delete",
    examples="""
    moln user delete anna
    """,
)
@click.argument("users", type=Name("user"), nargs=-1, required=True)
@yes_option
@click.pass_obj
def delete_users(session: Session, users: Sequence[str], yes: bool) -> None:
    """Deletes users who have no VMs."""
    found = USERS.find_all(session.client, users)
    confirm(f"Delete {', '.join(map(USERS.title, found))}?", yes=yes)
    for user in found:
        session.client.unary(USERS.path("DeleteUser"), DeleteUserRequest(id=user.id), DeleteUserResponse)
        click.echo(f"deleted {USERS.title(user)}")
