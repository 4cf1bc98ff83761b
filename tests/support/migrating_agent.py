"""`python -m tests.support.migrating_agent STATE URI ORDER`: an agent that migrates a guest, to be killed meanwhile."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from moln.node.v1.node_service_pb2 import VmOrder
from services.hostagent.drivers.libvirt.driver import DriverOptions, LibvirtDriver
from services.hostagent.drivers.ports import Deed
from tests.integration.hostagent.libvirt.conftest import pieces_of
from tests.support import hypervisor
from tests.support.deeds import Doer


async def main(state: Path, uri: str, order: Path) -> None:
    """Migrates, and says how it ended."""
    options = DriverOptions(1, hypervisor.CLOUD, state, uri, domain_type="qemu", has_bridges=False, migration_uri=uri)
    async with LibvirtDriver(options, pieces_of(state)) as driver:
        outcome = await Doer(driver).do(Deed.MIGRATE, VmOrder.FromString(order.read_bytes()))
        sys.stdout.write(f"{outcome}\n")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])))
