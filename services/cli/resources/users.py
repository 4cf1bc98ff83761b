"""Users."""

from __future__ import annotations

from moln.iam.v1.user_pb2 import DESCRIPTOR, User
from moln.iam.v1.user_service_pb2 import GetUserRequest, ListUsersRequest, ListUsersResponse
from services.cli.documents import enum_word
from services.cli.objects import Resource
from services.cli.sizes import age, mib
from services.cli.tables import Column

_ROLES = DESCRIPTOR.enum_types_by_name["Role"]


def role_of(user: User) -> str:
    """`ADMIN`."""
    return enum_word(_ROLES, user.spec.role)


def _of_limit(used: int, limit: int) -> str:
    return f"{used}/{limit}" if limit else str(used)


def _memory(user: User) -> str:
    limit = user.spec.limits.memory_mib
    return mib(user.usage.memory_mib) + (f"/{mib(limit)}" if limit else "")


def _disk(user: User) -> str:
    limit = user.spec.limits.disk_mib
    return mib(user.usage.disk_mib) + (f"/{mib(limit)}" if limit else "")


USERS: Resource[User] = Resource(
    word="user",
    service="moln.iam.v1.UserService",
    message=User,
    get_request=GetUserRequest,
    list_request=ListUsersRequest,
    list_reply=ListUsersResponse,
    items="users",
    name_of=lambda user: user.spec.name,
    has_filter=False,
    columns=(
        Column("ID", lambda user: str(user.id), is_number=True),
        Column("NAME", lambda user: user.spec.name),
        Column("ROLE", role_of),
        Column("VMS", lambda user: _of_limit(user.usage.vms, user.spec.limits.vms), is_number=True),
        Column("VCPUS", lambda user: _of_limit(user.usage.vcpus, user.spec.limits.vcpus), is_number=True),
        Column("MEMORY", _memory, is_number=True),
        Column("DISK", _disk, is_number=True),
        Column("CAPABILITIES", lambda user: ",".join(user.spec.capabilities), is_wide=True),
        Column("AGE", lambda user: age(user.spec.create_time)),
    ),
)
