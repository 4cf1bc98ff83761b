"""The node gateway: which host is on which stream, what each is owed, and what each reports.

Level-triggered: a changed VM only marks an order as due; what is sent is built from the index when it is sent.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial

from moln.node.v1 import node_service_pb2
from services.api.access.credentials import token_hash
from services.api.index.cloud import CloudIndex
from services.api.index.vms import VmRecord
from services.api.nodes import orders
from services.api.nodes.connection import AgentConnection, HostLink
from services.api.nodes.connections import Connections
from services.api.nodes.reports import Report, judge
from services.api.usecases.resources import catch_up
from services.common.domain.keys import SCHEMA_VERSION
from services.common.domain.reasons import Reason
from services.common.obs.logs import get_logger
from services.common.rpc.tickets import sign_ticket
from services.common.store import Change, Conflict, Store, Txn, ValueTooLarge, key

HEARTBEAT_S = 2
SILENT_S = 7.0
TICKET_S = 3600
_TRIES = 4
_log = get_logger("nodes")


class NodeGateway:
    """All streams of agents to this process."""

    def __init__(self, store: Store, cloud: CloudIndex, secret: bytes, public_address: str) -> None:
        self._store = store
        self._cloud = cloud
        self._secret = secret
        self._connections = Connections(store, cloud, public_address)
        self._ordered: dict[str, set[int]] = {}
        self.on_samples: Callable[[Sequence[node_service_pb2.HostSamples]], None] = lambda _: None
        """Is given the samples of hosts that are connected here."""
        cloud.vms.on_change(self._vm_changed)
        store.cache.subscribe(self._ticked, kinds={"process"})

    # What changes

    def _vm_changed(self, record: VmRecord, parts: set[str]) -> None:
        if parts and not parts & orders.ORDER_PARTS:
            return
        concerned = {*record.statuses, *self._ordered.get(record.key_id, ())}
        if record.placement is not None:
            concerned.update((record.placement.value.host_id, record.target_host_id))
        for host_id in concerned:
            link = self.links.get(host_id)
            if link is not None and link.is_synced:
                link.connection.mark(host_id, record.key_id)

    def _ticked(self, changes: Sequence[Change], _: int) -> None:
        for change in changes:
            if change.id == self._store.process.uuid and change.new is not None:
                began = change.new.value.time.ToNanoseconds() / 1e9
                for connection in self._connections.all():
                    if self._connections.is_on_record(connection):
                        connection.tick(began)

    # Who comes and goes

    async def register(self, connection: AgentConnection, hello: node_service_pb2.Hello) -> dict[int, str]:
        """Takes the hosts of a hello whose secrets are right. Returns why others are refused."""
        refused: dict[int, str] = {}
        for each in hello.hosts:
            record = self._cloud.hosts.get(each.host_id)
            secret = record.secret.value.secret_sha256 if record is not None and record.secret is not None else b""
            if record is None or not secret or not hmac.compare_digest(secret, token_hash(each.secret)):
                refused[each.host_id] = "the host is unknown or its secret is wrong; join it anew: moln host token HOST"
                continue
            assert record.spec is not None  # noqa: S101  for the type checker: `get` gives existing hosts
            link = HostLink(
                connection, each.host_id, record.spec.value.uid, record.name, each.boot_id, each.self_fence_s
            )
            self._connections.take_over(link)
        await self._connections.announce(list(connection.links.values()))
        _log.info("agent connected", agent=hello.agent_id, hosts=len(connection.links), refused=len(refused))
        return refused

    async def unregister(self, connection: AgentConnection) -> None:
        """The stream has ended: its hosts are no longer connected here."""
        gone = list(connection.links.values())
        for link in gone:
            for key_id in link.ordered:
                self._forget_order(link, key_id)
        _log.info("agent gone", agent=connection.agent_id, hosts=len(gone))
        await self._connections.withdraw(gone)

    @property
    def links(self) -> Mapping[int, HostLink]:
        """The hosts that are connected here."""
        return self._connections.links

    async def mend(self) -> None:
        """Brings the records of who is connected here up to date; and ends streams that are silent."""
        self.close_silent()
        await self._connections.mend()

    def close_silent(self) -> None:
        """Ends streams that have not been heard for SILENT_S; their agents dial again when they can."""
        now = time.monotonic()
        for connection in self._connections.all():
            if now - connection.heard > SILENT_S and not connection.is_closed:
                _log.warning("agent silent", agent=connection.agent_id, hosts=len(connection.links))
                connection.close()

    def close(self) -> None:
        """Ends all streams; their agents dial elsewhere."""
        for connection in self._connections.all():
            connection.close()

    def where_else(self, record: VmRecord) -> str:
        """Why a VM's host cannot be asked here, in words."""
        host = self._cloud.hosts.get(record.view.host_id)
        entry = host.connection if host is not None else None
        if host is None or entry is None:
            return f"VM {record.id}: its host is not connected; see: moln host list"
        return f"VM {record.id}: host {host.name} is connected to the api at {entry.value.address}; ask there"

    # What comes in

    def sampled(self, connection: AgentConnection, samples: Sequence[node_service_pb2.HostSamples]) -> None:
        """Takes samples of the stream's own hosts; others are passed over."""
        self.on_samples([sample for sample in samples if sample.host_id in connection.links])

    async def receive(self, connection: AgentConnection, messages: Sequence[node_service_pb2.ConnectRequest]) -> None:
        """Takes messages of a stream, in their order, as far as they have come in."""
        reports = [report for message in messages for report in message.reports]
        if reports:
            await self._store_reports(connection, reports)
        for message in messages:
            if message.hosts:
                await self._store_hosts(connection, message.hosts)
            if message.synced_host_ids:
                await self._synced(connection, message.synced_host_ids)

    async def _store_reports(self, connection: AgentConnection, reports: Sequence[Report]) -> None:
        """Commits the reports; of several for one VM each follows the one before."""
        waiting = list(reports)
        while waiting:
            batch: dict[tuple[int, int], Report] = {}
            rest: list[Report] = []
            for report in waiting:
                place = (report.status.host_id, report.vm_id)
                if place in batch:
                    rest.append(report)
                else:
                    batch[place] = report
            await self._store_batch(connection, list(batch.values()))
            waiting = rest

    async def _store_batch(self, connection: AgentConnection, batch: list[Report]) -> None:
        for _ in range(_TRIES):
            txns: list[Txn] = []
            committing: list[Report] = []
            for report in batch:
                link = connection.links.get(report.status.host_id)
                if link is None:
                    self._ack(connection, report, Reason.HOST_SECRET_INVALID)
                    continue
                verdict = judge(report, link.actor, self._cloud)
                if verdict.txn is None:
                    self._ack(connection, report, verdict.reason)
                else:
                    txns.append(verdict.txn)
                    committing.append(report)
            outcomes = await self._store.commit_all(txns)
            batch = []
            for report, outcome in zip(committing, outcomes, strict=True):
                if isinstance(outcome, int):
                    self._ack(connection, report, "")
                elif isinstance(outcome, Conflict):
                    batch.append(report)
                elif isinstance(outcome, ValueTooLarge):
                    self._ack(connection, report, Reason.FIELD_INVALID)
                else:
                    raise outcome
            if not batch:
                return
            await catch_up(self._store)
        for report in batch:
            self._ack(connection, report, Reason.CONFLICT)

    def _ack(self, connection: AgentConnection, report: Report, reason: str) -> None:
        connection.ack(report.status.host_id, report.vm_id, report.sequence, reason)

    async def _store_hosts(self, connection: AgentConnection, reports: Sequence[node_service_pb2.HostReport]) -> None:
        """Takes what is told of hosts; an inventory is written over the one that was seen, never over a newer one."""
        for report in reports:
            link = connection.links.get(report.host_id)
            if link is not None:
                link.orphans = tuple(report.orphans)
                if report.HasField("inventory"):
                    link.self_fence_s = report.inventory.self_fence_s
        for _ in range(_TRIES):
            outcomes = await self._store.commit_all(list(self._inventories(connection, reports)))
            if not any(isinstance(outcome, Conflict) for outcome in outcomes):
                break
            await catch_up(self._store)
        for outcome in outcomes:
            if isinstance(outcome, (Conflict, ValueTooLarge)):
                _log.warning("inventory not stored", agent=connection.agent_id, error=str(outcome))
            elif isinstance(outcome, Exception):
                raise outcome

    def _inventories(
        self, connection: AgentConnection, reports: Sequence[node_service_pb2.HostReport]
    ) -> Iterator[Txn]:
        for report in reports:
            link, record = connection.links.get(report.host_id), self._cloud.hosts.get(report.host_id)
            if link is None or record is None or not report.HasField("inventory"):
                continue
            inventory, stored = report.inventory, record.inventory
            inventory.uid = link.uid
            inventory.schema_version = SCHEMA_VERSION
            inventory.cause.actor = link.actor
            if stored is not None and stored.value == inventory:
                continue
            inventory_key = key("host", report.host_id, "inventory")
            txn = Txn().present(key("host", report.host_id, "spec"))
            txn.unchanged(inventory_key, stored.mod_revision if stored is not None else 0)
            yield txn.put(inventory_key, inventory)

    async def _synced(self, connection: AgentConnection, host_ids: Sequence[int]) -> None:
        """All guests of these hosts are reported: they may be given orders, all that there are."""
        links = [connection.links[host_id] for host_id in host_ids if host_id in connection.links]
        for link in links:
            link.is_synced = True
            for key_id in sorted(self._cloud.vms.by_host.get(link.host_id, ())):
                connection.mark(link.host_id, key_id)
        connection.completing.extend(link.host_id for link in links)
        connection.wake.set()
        await self._connections.announce(links)

    # What goes out

    async def send(self, connection: AgentConnection, write: Callable[[bytes], Awaitable[None]]) -> None:
        """Writes serialised ConnectResponses to a stream, as long as it lives."""
        while not connection.is_closed:
            built = await self._due_orders(connection)
            message = connection.message(built)
            if message:
                await write(message)
            if not connection.dirty:
                await connection.wake.wait()
            connection.wake.clear()

    async def _due_orders(self, connection: AgentConnection) -> list[bytes]:
        address = self._store.leader_address("imagesvc") or ""
        expire_s = int(time.time()) + TICKET_S
        ticketing = orders.Ticketing(address, expire_s, partial(sign_ticket, self._secret))
        built = []
        for host_id, key_id in connection.take_dirty():
            link = connection.links.get(host_id)
            order = await self._order(link, key_id, ticketing) if link is not None else None
            if order is not None:
                built.append(order)
        return built

    async def _order(self, link: HostLink, key_id: str, ticketing: orders.Ticketing) -> bytes | None:
        record = self._cloud.vms.by_key(key_id)
        if record is not None and orders.is_ordered(record, link.host_id):
            if not orders.is_complete(record):
                return None
            secrets = await self._secrets(record)
            link.ordered[key_id] = record.uid
            self._ordered.setdefault(key_id, set()).add(link.host_id)
            return orders.order_bytes(record, link.host_id, secrets, ticketing, self._cloud.hosts)
        uid = link.ordered.pop(key_id, "")
        self._forget_order(link, key_id)
        has_status = record is not None and link.host_id in record.statuses
        if not uid and not has_status:
            return None
        if record is not None and has_status:
            uid = record.statuses[link.host_id].value.uid
        return orders.erase_bytes(record, int(key_id), uid, link.host_id)

    def _forget_order(self, link: HostLink, key_id: str) -> None:
        hosts = self._ordered.get(key_id)
        if hosts is not None:
            hosts.discard(link.host_id)
            if not hosts:
                del self._ordered[key_id]

    async def _secrets(self, record: VmRecord) -> bytes:
        """Secrets are never cached: they are read when an order goes out."""
        if record.secrets is None:
            return b""
        entry = await self._store.read(record.secrets.key)
        return entry.raw if entry is not None else b""
