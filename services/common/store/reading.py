"""Reading from etcd itself, past the cache: one key as it is now, or whole kinds as they were at a revision."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable

from google.protobuf.message import DecodeError

from moln.etcd.v1 import etcd_pb2 as pb
from services.common.obs.logs import get_logger
from services.common.store.entries import Entry
from services.common.store.etcd.client import EtcdClient
from services.common.store.keys import KeyTable, prefix, split_key
from services.common.store.listing import pages

log = get_logger("store")


async def read_entry(client: EtcdClient, keys: KeyTable, full: str) -> Entry | None:
    """The newest value of one key, also of one that caches never hold; None where it is absent or does not parse."""
    request = pb.RangeRequest(key=full.encode(), limit=1)
    answer = await client.range(request.SerializeToString())
    return _entry(keys, answer.kvs[0]) if answer.kvs else None


async def entries_at(
    client: EtcdClient, keys: KeyTable, revision: int, kinds: Iterable[str], page_keys: int
) -> AsyncGenerator[Entry, None]:
    """All entries of some kinds as they were at a revision. Values that caches do not hold are left out of them."""
    for kind in kinds:
        async for page in pages(client, prefix(kind), revision, page_keys):
            for found in page:
                entry = _entry(keys, found, is_cached=True)
                if entry is not None:
                    yield entry


def _entry(keys: KeyTable, found: pb.KeyValue, *, is_cached: bool = False) -> Entry | None:
    kind, object_id, part = split_key(found.key.decode())
    row = keys.row(kind, part)
    if row is None:
        return None
    if is_cached and row.revision_only:
        return Entry(row, object_id, part, None, b"", found.create_revision, found.mod_revision)
    try:
        value = row.message.FromString(found.value)
    except DecodeError:
        log.error("value does not parse, left out", key=found.key.decode(), revision=found.mod_revision)
        return None
    return Entry(row, object_id, part, value, found.value, found.create_revision, found.mod_revision)
