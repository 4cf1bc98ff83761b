"""Finds out what the hosts are and how busy they are, and has it reported: once, and when it has changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from moln.compute.v1.host_pb2 import HostInventory
from moln.image.v1.image_pb2 import Datastore
from moln.node.v1.node_service_pb2 import HostReport, Welcome
from services.common.domain.errors import MolnError
from services.common.obs.logs import get_logger
from services.hostagent.drivers.ports import HostIdentity, InventoryDriver, Load

HOSTS_IN_ONE_GO = 50
INVENTORY_EVERY = 10
"""The inventory is read again with each tenth sample of the load."""


class HostReporter:
    """Gathers with `step`, which a loop calls; hands out with `take`."""

    def __init__(
        self,
        identities: Mapping[int, HostIdentity],
        driver: InventoryDriver,
        orphans: Callable[[int], list[str]],
        version: str,
        wake_link: Callable[[], None],
        metrics_address: str = "",
        watchdog: Callable[[], tuple[int, str]] = lambda: (0, ""),
    ) -> None:
        self._watchdog = watchdog
        self._metrics_address = metrics_address
        self._identities, self._driver, self._orphans, self._version = identities, driver, orphans, version
        self._wake_link = wake_link
        self.wake: Callable[[], None] = lambda: None
        self._datastores: Sequence[Datastore] = ()
        self._inventories: dict[int, HostInventory] = {}
        self._said: dict[int, tuple[Load, list[str]]] = {}
        self._pending: dict[int, HostReport] = {}
        self._steps = 0
        self._log = get_logger("hosts")

    def opened(self, welcome: Welcome, host_ids: Sequence[int]) -> None:
        """A stream is there: the inventories are read with the datastores that it named, and said anew."""
        self._datastores = list(welcome.datastores)
        self._inventories.clear()
        self._said.clear()
        self._pending.clear()
        self._steps = 0
        self.wake()

    def changed(self) -> None:
        """The inventory has changed: it is read and said with the next step, which comes at once."""
        self._steps = 0
        self.wake()

    async def step(self) -> None:
        """Samples all hosts once; what has changed is to be reported."""
        with_inventory = self._steps % INVENTORY_EVERY == 0
        self._steps += 1
        for number, (host_id, identity) in enumerate(self._identities.items()):
            if number % HOSTS_IN_ONE_GO == 0:
                await asyncio.sleep(0)  # a driver that answers from memory never waits: others want the loop too
            try:
                await self._sample(identity, with_inventory=with_inventory)
            except MolnError as err:
                self._log.warning("host not sampled", host_id=host_id, reason=err.reason, error=err.message)
        if self._pending:
            self._wake_link()

    def take(self, limit: int) -> list[HostReport]:
        """The next reports, at most `limit`."""
        taken = list(self._pending)[:limit]
        return [self._pending.pop(host_id) for host_id in taken]

    async def _sample(self, identity: HostIdentity, *, with_inventory: bool) -> None:
        host_id = identity.host_id
        report = HostReport(host_id=host_id)
        load, orphans = await self._driver.load(host_id), self._orphans(host_id)
        is_news = self._said.get(host_id) != (load, orphans)
        if with_inventory:
            inventory = await self._inventory(identity)
            if inventory != self._inventories.get(host_id):
                self._inventories[host_id] = inventory
                report.inventory.CopyFrom(inventory)
                is_news = True
        if is_news or host_id in self._pending:
            self._said[host_id] = load, orphans
            report.cpu_percent_used, report.memory_mib_used = load.cpu_percent, load.memory_mib
            report.orphans.extend(orphans)
            self._keep_inventory(report)
            self._pending[host_id] = report

    def _keep_inventory(self, report: HostReport) -> None:
        """What is not taken yet must not be lost by what comes after it."""
        earlier = self._pending.get(report.host_id)
        if earlier is not None and earlier.HasField("inventory") and not report.HasField("inventory"):
            report.inventory.CopyFrom(earlier.inventory)

    async def _inventory(self, identity: HostIdentity) -> HostInventory:
        inventory = await self._driver.inventory(identity.host_id, self._datastores)
        inventory.uid = identity.uid
        inventory.agent_version = self._version
        inventory.metrics_address = self._metrics_address
        inventory.self_fence_s, problem = self._watchdog()
        if problem:
            inventory.warnings.append(f"it does not fence itself: {problem}")
        return inventory
