"""The log of all changes for those who must hear of every one (the history): raw events by revision, in order.

It holds no cache and skips nothing; where revisions are forgotten it says so and ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from itertools import groupby
from typing import NamedTuple

from moln.etcd.v1 import etcd_pb2 as pb
from services.common.obs.logs import get_logger
from services.common.store.errors import StoreUnavailable
from services.common.store.etcd.client import EtcdClient
from services.common.store.keys import LANE, prefix
from services.common.store.retry import pauses
from services.common.store.watch import Events, answers

log = get_logger("store")
_LANES = prefix(LANE).encode()


class RawEvent(NamedTuple):
    """One key's change, unparsed. `value`: None where it was deleted; `prev`: None where there was none, or unknown."""

    key: str
    value: bytes | None
    prev: bytes | None


Step = tuple[int, list[RawEvent]]


async def tail(
    client: EtcdClient, from_revision: int, silence: float, *, with_prev: bool
) -> AsyncGenerator[list[Step], None]:
    """Lists of (revision, its events), from `from_revision` on, for ever; Compacted where that is forgotten.

    Streams that end are begun again. Close it with `contextlib.aclosing`.
    """
    after, waits = from_revision - 1, pauses()
    while True:
        try:
            async with aclosing(answers(client, after, silence, with_prev=with_prev)) as stream:
                async for events in stream:
                    steps = _by_revision(events)
                    if events:
                        after, waits = events[-1].kv.mod_revision, pauses()
                    if steps:
                        yield steps
        except StoreUnavailable as err:
            log.debug("tail begins again", at=after, error=str(err))
        await asyncio.sleep(next(waits))


def _by_revision(events: Events) -> list[Step]:
    wanted = (event for event in events if not event.kv.key.startswith(_LANES))
    return [
        (revision, [_raw(event) for event in group])
        for revision, group in groupby(wanted, key=lambda event: event.kv.mod_revision)
    ]


def _raw(event: pb.Event) -> RawEvent:
    value = None if event.type == pb.Event.EVENT_TYPE_DELETE else event.kv.value
    return RawEvent(event.kv.key.decode(), value, event.prev_kv.value if event.HasField("prev_kv") else None)
