"""Reading the history: lists and watches of events. One who is no administrator gets those of his own objects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from moln.operations.v1 import operations_service_pb2
from services.api.history.keeper import Keeper
from services.api.history.log import Event, Query
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.filters import Filter, Vocabulary, parse

_CHUNK = 1000
_MAX_PAGE = 10_000
_MAX_AGE_S = 3600.0

_VOCABULARY: Vocabulary[Event] = Vocabulary(
    keys={
        "kind": lambda event: event.kind,
        "id": lambda event: event.id,
        "name": lambda event: event.name,
        "from": lambda event: str(getattr(event, "from")),
        "to": lambda event: event.to,
        "reason": lambda event: event.reason,
        "host_id": lambda event: event.host_id,
        "actor": lambda event: event.cause.actor,
        "request_id": lambda event: event.cause.request_id,
    },
)


class Events:
    """The history, as users read it."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    async def list(
        self, request: operations_service_pb2.ListEventsRequest, caller: Caller
    ) -> operations_service_pb2.ListEventsResponse:
        """Events after a revision, oldest first; or the newest ones."""
        wanted = parse(request.filter, _VOCABULARY)
        limit = min(request.page_size or _CHUNK, _MAX_PAGE)
        self._check_kept(request.from_revision)
        found: list[Event] = []
        upto = self._keeper.revision
        query = _query(wanted, caller, request.from_revision, limit, is_newest=request.is_newest)
        events = await self._keeper.read(query)
        found = [event for event in events if wanted.matches(event)]
        is_whole = len(events) < limit
        while not is_whole and not request.is_newest and len(found) < limit:
            events = await self._keeper.read(query._replace(after=events[-1].revision))
            found += [event for event in events if wanted.matches(event)]
            is_whole = len(events) < limit
        last = upto if is_whole or request.is_newest else found[-1].revision if found else events[-1].revision
        return operations_service_pb2.ListEventsResponse(events=found, next_revision=last)

    async def watch(
        self, request: operations_service_pb2.WatchEventsRequest, caller: Caller
    ) -> AsyncIterator[operations_service_pb2.WatchEventsResponse]:
        """Events from a revision on, as they come to disk. Ends after an hour; resumes at `next_revision`."""
        wanted = parse(request.filter, _VOCABULARY)
        self._check_kept(request.from_revision)
        at = request.from_revision or self._keeper.revision
        try:
            async with asyncio.timeout(_MAX_AGE_S):
                while True:
                    upto = await self._keeper.wait_beyond(at)
                    events = await self._keeper.read(_query(wanted, caller, at, _CHUNK))
                    at = upto if len(events) < _CHUNK else events[-1].revision
                    found = [event for event in events if wanted.matches(event)]
                    if found:
                        yield operations_service_pb2.WatchEventsResponse(events=found, next_revision=at)
        except TimeoutError:
            return

    def _check_kept(self, revision: int) -> None:
        oldest = self._keeper.oldest_revision()
        if revision and oldest and revision < oldest - 1:
            raise MolnError(
                Reason.REVISION_GONE,
                f"from_revision: events after {revision} are no longer all kept; the oldest is of {oldest}",
            )


def _query(wanted: Filter[Event], caller: Caller, after: int, limit: int, *, is_newest: bool = False) -> Query:
    """As much of the filter as the index can answer."""
    kinds, ids = wanted.only("kind"), wanted.only("id")
    object_id = next(iter(ids)) if ids and len(ids) == 1 else ""
    return Query(
        after=after,
        limit=limit,
        kind=next(iter(kinds)) if kinds and len(kinds) == 1 else "",
        id=int(object_id) if object_id.isdigit() else 0,
        owner=0 if caller.is_admin else caller.user_id,
        is_newest=is_newest,
    )
