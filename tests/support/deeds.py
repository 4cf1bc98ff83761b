"""Asks a driver for deeds as the agent does, and waits for their outcome."""

from __future__ import annotations

import asyncio
import uuid

from moln.compute.v1 import vm_pb2
from moln.compute.v1.vm_pb2 import Operation, OperationKind, OperationParameters, VmStatus
from moln.node.v1.node_service_pb2 import VmOrder
from services.hostagent.drivers.ports import Deed, Driver, Outcome, Power, Seen, Work

WITH_ORDER = frozenset(Deed) - {Deed.SHUT_DOWN, Deed.PLUG, Deed.SUSPEND, Deed.HALT, Deed.ERASE}
"""Deeds that cannot be done without knowing what is to be."""


def operation(kind: OperationKind, **parameters: object) -> Operation:
    """An operation of that kind, with a fresh id."""
    return Operation(id=str(uuid.uuid4()), kind=kind, parameters=OperationParameters(**parameters))  # type: ignore[arg-type]


class Doer:
    """Does deeds on the guests of orders. `steps` are those of the last deed."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.steps: list[str] = []

    async def do(self, deed: Deed, order: VmOrder, *, grace_s: float = 30.0) -> Outcome:
        """Begins the deed and returns its outcome."""
        return await self.begin(deed, order, grace_s=grace_s)

    async def operate(self, order: VmOrder, operation: Operation) -> Outcome:
        """Has an operation carried out, and returns its outcome."""
        return await self.begin(Deed.OPERATE, order, operation=operation)

    def begin(
        self, deed: Deed, order: VmOrder, *, grace_s: float = 30.0, operation: Operation | None = None,
        is_background: bool = False,
    ) -> asyncio.Future[Outcome]:  # fmt: skip
        """Begins the deed."""
        ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.steps = []
        status = VmStatus(uid=order.uid, host_id=order.host_id, epoch=order.epoch, phase=vm_pb2.VM_PHASE_STARTING)
        self.driver.remember(status, order.vm_id)
        work = Work(
            deed, order.host_id, order.vm_id, order.uid, order if deed in WITH_ORDER else None, status,
            lambda _work, outcome: ended.set_result(outcome), self._progress, grace_s, operation, is_background,
        )  # fmt: skip
        self.driver.begin(work)
        return ended

    async def seen(self, order: VmOrder) -> Seen | None:
        """What a look finds of the guest."""
        found = await self.driver.look(order.host_id)
        return next((seen for seen in found if seen.uid == order.uid), None)

    async def power(self, order: VmOrder) -> Power:
        """ABSENT where a look finds nothing."""
        seen = await self.seen(order)
        return seen.power if seen is not None else Power.ABSENT

    def _progress(self, _work: Work, step: str, _percent: int) -> None:
        if not self.steps or self.steps[-1] != step:
            self.steps.append(step)
