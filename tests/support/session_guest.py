"""`python -m tests.support.session_guest FOLDER IMAGE`: one guest's life on qemu:///session, for a user without rights.

Run by a test as another user; prints what the driver says of itself and what the guest wrote.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from services.hostagent.drivers.libvirt.driver import DriverOptions, LibvirtDriver
from services.hostagent.drivers.ports import Deed
from tests.integration.hostagent.libvirt.conftest import pieces_of
from tests.support import hypervisor
from tests.support.deeds import Doer
from tests.support.eventually import eventually


async def main(folder: Path, image: Path) -> None:
    """Starts, waits for the guest's word, erases."""
    options = DriverOptions(1, hypervisor.CLOUD, folder, "qemu:///session", domain_type="qemu", cleans_up=True)
    async with LibvirtDriver(options, pieces_of(folder)) as driver:
        facts = await driver.inventory(1, [hypervisor.datastore(image.parent)])
        vm, doer = hypervisor.order(image), Doer(driver)
        hypervisor.add_nic(vm, "10.0.2.15", bridge="moln1", gateway="10.0.2.2")
        started = await doer.do(Deed.START, vm)

        async def ready() -> bool:
            return b" ready" in await driver.console_log(1, vm.uid, 0)

        if started.is_done:
            await eventually(ready, what="the guest is ready", within=120)
        log = (await driver.console_log(1, vm.uid, 0)).decode(errors="replace")
        erased = await doer.do(Deed.ERASE, vm)
        said = {"warnings": list(facts.warnings), "log": log, "outcomes": [str(started), str(erased)]}
        sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
