"""Users: create, change, credentials, delete."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterable

from moln.iam.v1 import user_pb2, user_service_pb2
from moln.operations.v1 import records_pb2
from services.api.access.credentials import new_token, password_hash, token_hash
from services.api.index.cloud import CloudIndex
from services.api.usecases.resources import catch_up, swap
from services.common.domain.caller import Caller, Capability
from services.common.domain.errors import MolnError, invalid
from services.common.domain.ids import check_name
from services.common.domain.keys import SCHEMA_VERSION
from services.common.domain.reasons import Reason
from services.common.domain.words import counted, them
from services.common.resources import page_token
from services.common.resources.records import cause_of, check_etag, claim_name, name_key
from services.common.resources.update_mask import apply_mask
from services.common.store import Conflict, Entry, Store, Txn, key

MIN_PASSWORD = 8
MAX_TOKENS = 32
TOKEN_PREFIX = "moln"  # noqa: S105  the visible beginning of tokens, no secret


class Users:
    """Users, as administrators change them and everyone sees himself."""

    def __init__(self, store: Store, cloud: CloudIndex) -> None:
        self._store = store
        self._cloud = cloud

    async def create(
        self, request: user_service_pb2.CreateUserRequest, caller: Caller
    ) -> user_service_pb2.CreateUserResponse:
        """Creates a user and a first token, which is shown once."""
        check_name("name", request.name)
        _check_capabilities(request.capabilities, "capabilities")
        cause = cause_of(caller, "CREATE")
        spec = user_pb2.UserSpec(
            uid=str(uuid.uuid4()),
            name=request.name,
            role=request.role or user_pb2.ROLE_USER,
            capabilities=request.capabilities,
            limits=request.limits,
            create_time=cause.time,
            cause=cause,
            schema_version=SCHEMA_VERSION,
        )
        user_id = (await self._store.ids.take("user", 1))[0]
        token = new_token(TOKEN_PREFIX)
        try:
            await self._store.commit(creation(user_id, spec, token))
        except Conflict as err:
            raise MolnError(Reason.NAME_TAKEN, f"create user: there is a user {request.name} already") from err
        return user_service_pb2.CreateUserResponse(user=self.get(user_id, caller), token=token)

    def get(self, user_id: int, caller: Caller) -> user_pb2.User:
        """One user. Raises NOT_FOUND, also for one whom the caller may not see."""
        entry = self._spec(user_id, caller)
        return user_pb2.User(
            id=user_id, spec=entry.value, usage=self._cloud.catalog.usage(user_id), etag=str(entry.mod_revision)
        )

    def list(self, request: user_service_pb2.ListUsersRequest, caller: Caller) -> user_service_pb2.ListUsersResponse:
        """A page of users by id; one who is no administrator sees himself."""
        token = page_token.decode(request.page_token, "")
        limit = page_token.size(request.page_size)
        found = sorted(
            user_id
            for user_id in self._cloud.catalog.by_user_name.values()
            if f"{user_id:010d}" > token.last and caller.may_see(user_id)
        )
        page, revision = found[:limit], self._store.cache.revision
        return user_service_pb2.ListUsersResponse(
            users=[self.get(user_id, caller) for user_id in page],
            next_page_token=page_token.encode(f"{page[-1]:010d}", "", revision) if len(found) > limit else "",
            revision=revision,
        )

    async def update(self, request: user_service_pb2.UpdateUserRequest, caller: Caller) -> user_pb2.User:
        """Changes role, capabilities or limits."""

        def build() -> Txn:
            entry = self._spec(request.id, caller)
            check_etag(request.etag, entry, f"user {request.id}")
            spec = apply_mask(entry.value, request.spec, request.update_mask, ("role", "capabilities", "limits"))
            _check_capabilities(spec.capabilities, "spec.capabilities")
            spec.cause.CopyFrom(cause_of(caller, "UPDATE"))
            txn = Txn()
            txn.unchanged(entry.key, entry.mod_revision)
            if entry.value.role == user_pb2.ROLE_ADMIN and spec.role != user_pb2.ROLE_ADMIN:
                self._keep_other_admin(request.id, txn)
            txn.put(entry.key, spec)
            return txn

        await swap(self._store, f"update user {request.id}", build)
        return self.get(request.id, caller)

    async def new_token(self, user_id: int, is_sole: bool, caller: Caller) -> str:
        """A new token; the former ones end when it is the sole one."""
        token = new_token(TOKEN_PREFIX)

        def change(secret: user_pb2.UserSecret) -> None:
            if is_sole:
                del secret.token_sha256[:]
            if len(secret.token_sha256) >= MAX_TOKENS:
                problem = f"user {user_id} has {MAX_TOKENS} tokens; end the old ones with is_sole"
                raise MolnError(Reason.QUOTA_EXCEEDED, f"make a token: {problem}")
            secret.token_sha256.append(token_hash(token))

        await self._change_secret(user_id, caller, change)
        return token

    async def set_password(self, user_id: int, password: str, caller: Caller) -> None:
        """Sets the password; an empty one removes it."""
        if password and len(password) < MIN_PASSWORD:
            raise invalid("password", f"takes at least {MIN_PASSWORD} characters")
        hashed = await asyncio.to_thread(password_hash, password) if password else ""

        def change(secret: user_pb2.UserSecret) -> None:
            secret.password_argon2 = hashed

        await self._change_secret(user_id, caller, change)

    async def delete(self, user_id: int, caller: Caller) -> None:
        """Deletes a user. Raises USER_IN_USE while he has VMs, LAST_ADMIN for the last administrator.

        What is stored by now is seen: a VM that another process has shown as gone counts no more.
        """
        await catch_up(self._store)

        def build() -> Txn:
            entry = self._spec(user_id, caller)
            if self._cloud.catalog.usage(user_id).vms:
                count = self._cloud.catalog.usage(user_id).vms
                raise MolnError(
                    Reason.USER_IN_USE,
                    f"delete user {entry.value.name}: he has {counted(count, 'VM')}; terminate {them(count)}",
                )
            usage = self._cloud.catalog.get("usage", user_id, "")
            usage_key = key("usage", user_id)
            txn = Txn()
            txn.unchanged(entry.key, entry.mod_revision)
            if entry.value.role == user_pb2.ROLE_ADMIN:
                self._keep_other_admin(user_id, txn)
            txn.unchanged(usage_key, usage.mod_revision if usage is not None else 0)
            txn.delete(usage_key)
            txn.delete_prefix(key("user", user_id) + "/")
            txn.delete(name_key("user", 0, entry.value.name))
            return txn

        await swap(self._store, f"delete user {user_id}", build)

    async def _change_secret(self, user_id: int, caller: Caller, change: Callable[[user_pb2.UserSecret], None]) -> None:
        def build() -> Txn:
            spec = self._spec(user_id, caller)
            entry = self._cloud.catalog.get("user", user_id, "secret")
            secret = user_pb2.UserSecret(uid=spec.value.uid, schema_version=SCHEMA_VERSION)
            if entry is not None:
                secret.CopyFrom(entry.value)
            change(secret)
            secret_key = key("user", user_id, "secret")
            txn = Txn()
            txn.present(spec.key)
            txn.unchanged(secret_key, entry.mod_revision if entry is not None else 0)
            return txn.put(secret_key, secret)

        await swap(self._store, f"change the credentials of user {user_id}", build)

    def _spec(self, user_id: int, caller: Caller) -> Entry:
        entry = self._cloud.catalog.get("user", user_id)
        if entry is None or not caller.may_see(user_id):
            raise MolnError(Reason.USER_NOT_FOUND, f"there is no user {user_id} that {caller.name} may see")
        return entry

    def _keep_other_admin(self, user_id: int, txn: Txn) -> None:
        """Makes the transaction depend on another administrator, who must still be one. Raises LAST_ADMIN."""
        catalog = self._cloud.catalog
        for other in catalog.by_user_name.values():
            entry = catalog.get("user", other)
            if other != user_id and entry is not None and entry.value.role == user_pb2.ROLE_ADMIN:
                txn.unchanged(entry.key, entry.mod_revision)
                return
        raise MolnError(Reason.LAST_ADMIN, "the last administrator cannot go; make another one first")


def creation(user_id: int, spec: user_pb2.UserSpec, token: str) -> Txn:
    """The transaction that creates a user with one token. His usage lives as long as he: nothing is charged without."""
    secret = user_pb2.UserSecret(uid=spec.uid, token_sha256=[token_hash(token)], schema_version=SCHEMA_VERSION)
    txn = Txn()
    claim_name(txn, "user", 0, spec.name, user_id)
    txn.put(key("user", user_id, "spec"), spec)
    txn.put(key("user", user_id, "secret"), secret)
    txn.put(key("usage", user_id), records_pb2.UsageRecord())
    return txn


def _check_capabilities(names: Iterable[str], field: str) -> None:
    known = {str(each) for each in Capability}
    for name in names:
        if name not in known:
            raise invalid(field, f"'{name}' is not one of {', '.join(sorted(known))}")
