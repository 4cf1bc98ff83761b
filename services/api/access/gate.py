"""The one gate before every RPC of the api: authenticate, then authorise by the table. It looks no object up."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable

from services.api.access.credentials import Authenticator
from services.api.access.table import ACCESS, Access
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.resources.front import MIN_REVISION_HEADER
from services.common.rpc.call import Call, current_call
from services.common.store import Store

STRONG = "STRONG"
"""Stands for the newest revision there is."""
_WAIT_S = 10.0


class ApiGate:
    """Lets a call pass, or raises. Sets `call.caller`."""

    def __init__(self) -> None:
        self._opened: tuple[Authenticator, Store] | None = None

    def open(self, authenticator: Authenticator, store: Store) -> None:
        """Lets calls through from now on. The port is taken before the store is loaded; until then nothing passes."""
        self._opened = (authenticator, store)

    @property
    def _authenticator(self) -> Authenticator:
        return self._parts()[0]

    @property
    def _store(self) -> Store:
        return self._parts()[1]

    def _parts(self) -> tuple[Authenticator, Store]:
        if self._opened is None:
            raise MolnError(Reason.STORE_UNAVAILABLE, "the api is starting: it has not read the store yet; ask again")
        return self._opened

    def __call__(self, call: Call) -> Awaitable[None] | None:
        """What is quick is done at once; a password, or waiting for a revision, takes a coroutine."""
        access = ACCESS.get(call.method)
        if access is Access.OPEN or access is Access.NODE:
            return None
        if access is None:
            raise MolnError(Reason.ROLE_MISSING, f"{call.method} is open to nobody")
        header = call.header("authorization")
        caller = self._authenticator.by_token(header) if header else None
        if caller is None:
            return self._slow(call, access, header)
        self._admit(call, access, caller)
        return self._wait(call)

    async def _slow(self, call: Call, access: Access, header: str) -> None:
        self._admit(call, access, await self._authenticator.by_password(header))
        waiting = self._wait(call)
        if waiting is not None:
            await waiting

    def _admit(self, call: Call, access: Access, caller: Caller) -> None:
        if access is Access.ADMIN and not caller.is_admin:
            what = call.method.rpartition("/")[2]
            raise MolnError(Reason.ROLE_MISSING, f"{what}: only administrators may do this, and {caller.name} is none")
        call.caller = dataclasses.replace(caller, request_id=call.request_id)
        self._store.cache.check_fresh()

    def _wait(self, call: Call) -> Awaitable[None] | None:
        """Waits until the cache has what the client has seen already: `moln-min-revision`, or STRONG for the newest."""
        wanted = call.header(MIN_REVISION_HEADER)
        if not wanted:
            return None
        if wanted == STRONG:
            return self._wait_newest()
        if not wanted.isdigit():
            raise MolnError(Reason.FIELD_INVALID, f"metadata {MIN_REVISION_HEADER}: takes a revision or {STRONG}")
        revision = int(wanted)
        return self._store.cache.wait(revision, _WAIT_S) if revision > self._store.cache.revision else None

    async def _wait_newest(self) -> None:
        await self._store.cache.wait(await self._store.current_revision(), _WAIT_S)


def caller_of_call() -> Caller:
    """The authenticated user of the call that this task serves."""
    caller = current_call().caller
    if not isinstance(caller, Caller):
        raise MolnError(Reason.TOKEN_MISSING, "the call carries no credentials")
    return caller
