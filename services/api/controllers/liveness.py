"""The host controller: whether each host can be heard. One leader writes `liveness`, from who holds its stream."""

from __future__ import annotations

import asyncio
import time

from google.protobuf.timestamp_pb2 import Timestamp

from moln.common.v1 import common_pb2
from moln.compute.v1 import host_pb2
from services.api.index.cloud import CloudIndex
from services.api.index.hosts import HostRecord
from services.common.domain.keys import SCHEMA_VERSION
from services.common.obs.logs import get_logger
from services.common.store import Change, Leadership, Store, Txn, key

GRACE_S = 5.0
"""A stream may be away this long before its host is silent: an agent that dials another api is no loss."""
_REVIEW_S = 1.0
_L = host_pb2.LivenessState
_log = get_logger("hosts")


class HostController:
    """Level-triggered: looks at every host that changed, and at all of them once a second while any is away."""

    def __init__(self, store: Store, cloud: CloudIndex) -> None:
        self._store = store
        self._cloud = cloud
        self._away: dict[int, float] = {}
        self._wake = asyncio.Event()
        cloud.hosts.on_change(self._changed)

    def _changed(self, _: HostRecord, part: str, __: Change) -> None:
        if part in ("connection", "spec", "liveness"):
            self._wake.set()

    async def run(self, leadership: Leadership) -> None:
        """Until leadership is lost."""
        self._away.clear()
        while True:
            self._wake.clear()
            txns = [txn for host in self._cloud.hosts.all() if (txn := self._review(host, leadership)) is not None]
            outcomes = await self._store.commit_all(txns)
            if any(isinstance(outcome, Exception) for outcome in outcomes):
                _log.info("liveness changed meanwhile", hosts=len(txns))
            timeout = _REVIEW_S if self._away or txns else None
            try:
                async with asyncio.timeout(timeout):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _review(self, host: HostRecord, leadership: Leadership) -> Txn | None:
        liveness = host.liveness_value()
        state = liveness.state if liveness is not None else _L.LIVENESS_STATE_UNSPECIFIED
        connection = host.connection.value if host.connection is not None else None
        if connection is not None and connection.is_synced:
            self._away.pop(host.id, None)
            boot_id = liveness.boot_id if liveness is not None else ""
            if state == _L.LIVENESS_STATE_CONNECTED and boot_id == connection.boot_id:
                return None
            return self._write(host, leadership, _L.LIVENESS_STATE_CONNECTED, connection.boot_id, "connected")
        if state != _L.LIVENESS_STATE_CONNECTED:
            self._away.pop(host.id, None)
            return None
        since = self._away.setdefault(host.id, time.monotonic())
        if time.monotonic() - since < GRACE_S:
            return None
        del self._away[host.id]
        assert liveness is not None  # noqa: S101  for the type checker: CONNECTED is a stored state
        return self._write(host, leadership, _L.LIVENESS_STATE_SILENT, liveness.boot_id, "silent")

    def _write(
        self, host: HostRecord, leadership: Leadership, state: host_pb2.LivenessState, boot_id: str, word: str
    ) -> Txn:
        now = Timestamp()
        now.GetCurrentTime()
        assert host.spec is not None  # noqa: S101  for the type checker: `all` gives existing hosts
        liveness = host_pb2.HostLiveness(
            uid=host.spec.value.uid,
            state=state,
            boot_id=boot_id,
            since=now,
            schema_version=SCHEMA_VERSION,
            cause=common_pb2.Cause(actor="<api>", reason=word.upper(), time=now),
        )
        txn = Txn(guard=leadership)
        liveness_key = key("host", host.id, "liveness")
        txn.present(host.spec.key)
        if host.liveness is None:
            txn.absent(liveness_key)
        else:
            txn.unchanged(liveness_key, host.liveness.mod_revision)
        if host.connection is not None:
            txn.unchanged(host.connection.key, host.connection.mod_revision)
        else:
            txn.absent(key("hostconn", host.id))
        txn.put(liveness_key, liveness)
        _log.info("host heard" if word == "connected" else "host silent", host=host.name)
        return txn
