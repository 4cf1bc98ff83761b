"""The first contact with etcd: tries for a bounded time, says clearly what is wrong, finds out what etcd allows."""

from __future__ import annotations

import asyncio

from moln.etcd.v1 import etcd_pb2 as pb
from services.common.store.errors import Refused, StoreError, StoreUnavailable
from services.common.store.etcd.client import EtcdClient
from services.common.store.keys import ROOT
from services.common.store.listing import current_revision
from services.common.store.retry import pauses
from services.common.store.settings import StoreSettings

DEFAULT_MAX_OPS = 128


async def connected(settings: StoreSettings) -> EtcdClient:
    """A client that has had an answer. StoreUnavailable after `open_timeout`; Refused where etcd does not let us in."""
    try:
        client = await EtcdClient.connect(settings)
    except (ValueError, OSError) as err:
        raise StoreUnavailable(f"cannot reach etcd: {err}") from err
    try:
        await _first_answer(client, settings)
    except BaseException:
        await client.close()
        raise
    return client


async def _first_answer(client: EtcdClient, settings: StoreSettings) -> None:
    deadline = asyncio.get_running_loop().time() + settings.open_timeout
    for pause in pauses():
        try:
            await client.authenticate()
            await current_revision(client)
            return
        except StoreUnavailable as err:
            if asyncio.get_running_loop().time() + pause > deadline:
                places = ", ".join(settings.endpoints)
                raise StoreUnavailable(
                    f"no answer from etcd at {places} within {settings.open_timeout:g} s: is it running? ({err})"
                ) from err
        await asyncio.sleep(pause)


async def probe_max_ops(client: EtcdClient, wanted: int) -> int:
    """The largest number of operations that etcd takes in one transaction, up to `wanted`. Writes nothing."""
    ops = wanted
    while ops > DEFAULT_MAX_OPS:
        if await _takes(client, ops):
            return ops
        ops //= 2
    return DEFAULT_MAX_OPS if await _takes(client, DEFAULT_MAX_OPS) else ops


async def _takes(client: EtcdClient, ops: int) -> bool:
    request = pb.TxnRequest(compare=[pb.Compare(key=ROOT.encode(), create_revision=0)])
    body = request.SerializeToString() * ops
    try:
        await client.txn(body)
    except Refused as err:
        if err.code == "INVALID_ARGUMENT":
            return False
        raise
    except StoreError:
        raise
    return True
