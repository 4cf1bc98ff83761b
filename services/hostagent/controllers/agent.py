"""What the agent says on its stream, and who is told what the gateway says. Translates; decides nothing."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from moln.node.v1.node_service_pb2 import (
    ConnectRequest,
    ConnectResponse,
    Hello,
    HostHello,
    HostReport,
    HostSamples,
    TunnelOrder,
    Welcome,
)
from services.common.obs.logs import get_logger
from services.hostagent.controllers.outbox import Outbox
from services.hostagent.controllers.reconciler import Reconciler
from services.hostagent.drivers.ports import HostIdentity

REPORTS_PER_MESSAGE = 500
HOSTS_PER_MESSAGE = 200


class HostReports(Protocol):
    """Where reports on hosts come from."""

    def opened(self, welcome: Welcome, host_ids: Sequence[int]) -> None:
        """A stream is there: everything on these hosts is to be said anew."""
        ...

    def take(self, limit: int) -> list[HostReport]:
        """The next reports, at most `limit`."""
        ...


class LoadSamples(Protocol):
    """Where samples of load come from."""

    def take(self, limit: int) -> list[HostSamples]:
        """The next samples, of at most `limit` hosts."""
        ...


class AgentSession:
    """The session of all hosts of this process. Implements link.Session."""

    def __init__(
        self,
        identities: Mapping[int, HostIdentity],
        boot_id: Callable[[int], str],
        version: str,
        reconciler: Reconciler,
        outbox: Outbox,
        hosts: HostReports,
        samples: LoadSamples,
        open_tunnel: Callable[[TunnelOrder], None],
        look_at_all: Callable[[], None],
    ) -> None:
        self._identities, self._boot_id, self._version = identities, boot_id, version
        self._reconciler, self._outbox, self._hosts = reconciler, outbox, hosts
        self._samples = samples
        self._open_tunnel, self._look_at_all = open_tunnel, look_at_all
        self._agent_id = str(uuid.uuid4())
        self._unsynced: list[int] = []
        self.silent_hosts: set[int] = set()
        """Hosts that are kept out of the next streams: for the simulator's control file."""
        self.promise_s: Callable[[], int] = lambda: 0
        """What the machine's watchdog promises now: core/feeding.py."""
        self._log = get_logger("session")

    def hello(self) -> Hello:
        """All hosts, with their secrets and boot ids."""
        hosts = [
            HostHello(
                host_id=host.host_id,
                secret=host.secret,
                boot_id=self._boot_id(host.host_id),
                self_fence_s=self.promise_s(),
            )
            for host in self._identities.values()
            if host.host_id not in self.silent_hosts
        ]
        return Hello(agent_id=self._agent_id, version=self._version, hosts=hosts)

    def opened(self, welcome: Welcome) -> None:
        """Everything that is here is reported anew."""
        for host_id, reason in welcome.refused_hosts.items():
            self._log.error("host refused by the gateway", host_id=host_id, reason=reason)
        kept_out = self.silent_hosts | set(welcome.refused_hosts)
        host_ids = [host_id for host_id in self._identities if host_id not in kept_out]
        self._outbox.open()
        self._hosts.opened(welcome, host_ids)
        self._reconciler.report_all(host_ids)
        self._unsynced = host_ids
        self._look_at_all()

    def received(self, response: ConnectResponse) -> None:
        """Orders, answers, tunnels."""
        if response.acks:
            self._reconciler.take_acks(response.acks)
        if response.orders:
            self._reconciler.take_orders(response.orders, time.monotonic())
        for complete in response.complete:
            self._reconciler.take_complete(complete.host_id, complete.vm_ids)
        for tunnel in response.tunnels:
            self._open_tunnel(tunnel)

    def outgoing(self) -> ConnectRequest | None:
        """Reports first; that hosts are synced only after the last of them."""
        reports = self._outbox.take(REPORTS_PER_MESSAGE)
        hosts = self._hosts.take(HOSTS_PER_MESSAGE)
        samples = self._samples.take(HOSTS_PER_MESSAGE)
        if not reports and not hosts and not samples and not self._unsynced:
            return None
        request = ConnectRequest(reports=reports, hosts=hosts, samples=samples)
        if self._unsynced and len(reports) < REPORTS_PER_MESSAGE:
            request.synced_host_ids.extend(self._unsynced)
            self._unsynced = []
        return request

    def closed(self) -> None:
        """Nothing can be said for now."""
        self._outbox.close()
