"""Reading the history: lists and watches of events. One who is no administrator gets those of his own objects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from moln.operations.v1 import operations_service_pb2
from services.api.history.keeper import Keeper
from services.api.history.log import Event, Query
from services.api.usecases.streams import MAX_AGE_S, Streams
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.filters import Filter, Vocabulary, parse

_CHUNK = 1000
_MAX_PAGE = 10_000

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

    def __init__(self, keeper: Keeper, streams: Streams) -> None:
        self._keeper = keeper
        self._streams = streams

    async def list(
        self, request: operations_service_pb2.ListEventsRequest, caller: Caller
    ) -> operations_service_pb2.ListEventsResponse:
        """Events after a revision, oldest first; or the newest ones. A revision is never divided between answers."""
        wanted = parse(request.filter, _VOCABULARY)
        self._check_kept(request.from_revision)
        limit = min(request.page_size or _CHUNK, _MAX_PAGE)
        upto = self._keeper.revision
        query = _query(wanted, caller, request.from_revision, limit)
        if request.is_newest:
            return operations_service_pb2.ListEventsResponse(
                events=await _newest(self._keeper, query, wanted), next_revision=upto
            )
        events, last = await _oldest(self._keeper, query, wanted)
        return operations_service_pb2.ListEventsResponse(events=events, next_revision=last or upto)

    async def watch(
        self, request: operations_service_pb2.WatchEventsRequest, caller: Caller
    ) -> AsyncIterator[operations_service_pb2.WatchEventsResponse]:
        """Events from a revision on, as they come to disk. Ends after an hour; resumes at `next_revision`."""
        wanted = parse(request.filter, _VOCABULARY)
        self._check_kept(request.from_revision)
        at = request.from_revision or self._keeper.revision
        wake = asyncio.Event()
        try:
            with self._keeper.follow(wake), self._streams.wakes(wake):
                async with asyncio.timeout(MAX_AGE_S):
                    while not self._streams.are_ending:
                        wake.clear()
                        upto = self._keeper.revision
                        events = await self._keeper.read(_query(wanted, caller, at, _CHUNK)) if upto > at else []
                        at = events[-1].revision if len(events) >= _CHUNK else max(at, upto)
                        found = [event for event in events if wanted.matches(event)]
                        if found:
                            yield operations_service_pb2.WatchEventsResponse(events=found, next_revision=at)
                        if at >= self._keeper.revision:
                            await wake.wait()
        except TimeoutError:
            return

    def _check_kept(self, revision: int) -> None:
        beginning = self._keeper.beginning
        if revision and revision < beginning:
            raise MolnError(
                Reason.REVISION_GONE,
                f"from_revision: events after {revision} are no longer all kept here, those after {beginning} are; "
                "begin there, or at 0 for the oldest",
            )


async def _oldest(keeper: Keeper, query: Query, wanted: Filter[Event]) -> tuple[list[Event], int]:
    """Events, and the revision to go on from; 0 when there are no more."""
    found: list[Event] = []
    while True:
        events = await keeper.read(query)
        matching = [event for event in events if wanted.matches(event)]
        room = query.limit - len(found)
        if len(matching) > room:
            found += [event for event in matching if event.revision <= matching[max(0, room - 1)].revision]
            return found, found[-1].revision
        found += matching
        if len(events) < query.limit:
            return found, 0
        if len(found) >= query.limit:
            return found, events[-1].revision
        query = query._replace(after=events[-1].revision)


async def _newest(keeper: Keeper, query: Query, wanted: Filter[Event]) -> list[Event]:
    found: list[Event] = []
    query = query._replace(is_newest=True)
    while len(found) < query.limit:
        events = await keeper.read(query)
        found = [event for event in events if wanted.matches(event)] + found
        if len(events) < query.limit:
            break
        query = query._replace(before=events[0].revision)
    return found[-query.limit :]


def _query(wanted: Filter[Event], caller: Caller, after: int, limit: int) -> Query:
    """As much of the filter as the index can answer."""
    kinds, ids = wanted.only("kind"), wanted.only("id")
    object_id = next(iter(ids)) if ids and len(ids) == 1 else ""
    return Query(
        after=after,
        limit=limit,
        kind=next(iter(kinds)) if kinds and len(kinds) == 1 else "",
        id=int(object_id) if object_id.isdigit() else 0,
        owner=0 if caller.is_admin else caller.user_id,
    )
