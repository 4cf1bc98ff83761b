"""Which host is on which stream of this process, and the records that tell all processes. It stores nothing else.

A host is where its newest record says: a stream that another process has taken over, or whose host is gone or has got
another secret, ends here.
"""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from moln.compute.v1 import host_pb2
from services.api.index.cloud import CloudIndex
from services.api.index.hosts import HostRecord
from services.api.nodes.connection import AgentConnection, HostLink
from services.api.usecases.resources import catch_up
from services.common.obs.logs import get_logger
from services.common.store import Change, Conflict, Store, Txn, key

_TRIES = 4
_log = get_logger("nodes")


class Connections:
    """Links by host, and their records under this process's lease."""

    def __init__(self, store: Store, cloud: CloudIndex, public_address: str) -> None:
        self._store = store
        self._cloud = cloud
        self._public_address = public_address
        self.links: dict[int, HostLink] = {}
        cloud.hosts.on_change(self._host_changed)

    def is_on_record(self, connection: AgentConnection) -> bool:
        """Every host of the stream is recorded as being here: whoever looks at the store sees that it is heard.

        Only then are its heartbeats acknowledged: a node that no record shows must take itself for lost.
        """
        return all(self._is_here(link.host_id) for link in connection.links.values())

    def _is_here(self, host_id: int) -> bool:
        host = self._cloud.hosts.get(host_id)
        return (
            host is not None
            and host.connection is not None
            and (host.connection.value.process == self._store.process.uuid)
        )

    def all(self) -> set[AgentConnection]:
        """The streams that carry a host."""
        return {link.connection for link in self.links.values()}

    def take_over(self, link: HostLink) -> None:
        """The host is on this stream from now on; another one loses it, and ends with its last host."""
        former = self.links.get(link.host_id)
        if former is not None:
            self.drop(former)
        self.links[link.host_id] = link
        link.connection.links[link.host_id] = link

    def drop(self, link: HostLink) -> None:
        """The stream carries the host no more."""
        if self.links.get(link.host_id) is link:
            del self.links[link.host_id]
        link.connection.links.pop(link.host_id, None)
        if not link.connection.links:
            link.connection.close()

    async def announce(self, links: Sequence[HostLink]) -> None:
        """Tells all processes that these hosts are here. Raises StoreError where the store cannot be told."""
        waiting = [*links]
        for _ in range(_TRIES):
            lease = await self._store.process_lease()
            outcomes = await self._store.commit_all([self._record(link, lease) for link in waiting])
            refused: list[HostLink] = []
            for link, outcome in zip(waiting, outcomes, strict=True):
                if isinstance(outcome, int):
                    link.announced = outcome
                elif isinstance(outcome, Conflict):
                    refused.append(link)
                else:
                    raise outcome
            if not refused:
                return
            await catch_up(self._store)
            waiting = [link for link in refused if self._cloud.hosts.get(link.host_id) and link.connection.links]
        for link in refused:
            self.drop(link)

    async def withdraw(self, links: Sequence[HostLink]) -> None:
        """Tells all processes that these hosts are here no more. What cannot be told now is mended later."""
        for link in links:
            self.drop(link)
        await self._delete([record for link in links if (record := self._stale(link.host_id)) is not None])

    async def mend(self) -> None:
        """Compares streams with records, and writes what is missing or left over. Level-triggered, idempotent."""
        lost = [link for link in self.links.values() if link.announced and self._is_unrecorded(link)]
        await self._delete([host for each in self._cloud.hosts.all() if (host := self._stale(each.id)) is not None])
        if lost:
            _log.info("hosts announced anew", hosts=len(lost))
            await self.announce(lost)

    def _is_unrecorded(self, link: HostLink) -> bool:
        host = self._cloud.hosts.get(link.host_id)
        return host is not None and (host.connection is None or host.connection.value.is_synced != link.is_synced)

    def _stale(self, host_id: int) -> HostRecord | None:
        """The host, if its record says that it is here and it is not."""
        host = self._cloud.hosts.get(host_id)
        if host is None or host.connection is None or host_id in self.links:
            return None
        return host if host.connection.value.process == self._store.process.uuid else None

    async def _delete(self, hosts: Sequence[HostRecord]) -> None:
        txns = []
        for host in hosts:
            assert host.connection is not None  # noqa: S101  for the type checker: `_stale` has looked
            txn = Txn().unchanged(host.connection.key, host.connection.mod_revision)
            txns.append(txn.delete(host.connection.key))
        await self._store.commit_all(txns)

    def _record(self, link: HostLink, lease: int) -> Txn:
        now = Timestamp()
        now.GetCurrentTime()
        record = host_pb2.HostConnection(
            process=self._store.process.uuid,
            address=self._public_address,
            boot_id=link.boot_id,
            since=now,
            is_synced=link.is_synced,
        )
        txn = Txn().present(key("host", link.host_id, "spec"))
        self._lower(link, txn)
        return txn.put(key("hostconn", link.host_id), record, lease=lease)

    def _lower(self, link: HostLink, txn: Txn) -> None:
        """What is stored of the node's watchdog is never more than what its present agent says, from its hello on."""
        host = self._cloud.hosts.get(link.host_id)
        entry = host.inventory if host is not None else None
        inventory_key = key("host", link.host_id, "inventory")
        txn.unchanged(inventory_key, entry.mod_revision if entry is not None else 0)
        if entry is not None and entry.value.self_fence_s != link.self_fence_s:
            lowered = host_pb2.HostInventory()
            lowered.CopyFrom(entry.value)
            lowered.self_fence_s = link.self_fence_s
            lowered.cause.actor = link.actor
            txn.put(inventory_key, lowered)

    def _host_changed(self, host: HostRecord, part: str, change: Change) -> None:
        link = self.links.get(host.id)
        if link is not None and self._is_over(link, part, change):
            _log.info("stream of a host has been superseded", host=link.name, part=part)
            self.drop(link)

    def _is_over(self, link: HostLink, part: str, change: Change) -> bool:
        new, old = change.new, change.old
        match part:
            case "spec":
                return new is None
            case "secret":
                return new is not None and old is not None and new.value.secret_sha256 != old.value.secret_sha256
            case "connection":
                is_elsewhere = new is not None and new.value.process != self._store.process.uuid
                return is_elsewhere and 0 < link.announced < change.revision
            case _:
                return False
