"""Guests that do something which can be seen from outside: count, answer what is typed."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from moln.node.v1.node_service_pb2 import VmOrder
from services.hostagent.drivers.libvirt.driver import LibvirtDriver
from tests.support.eventually import eventually
from tests.support.hypervisor import order

BOOT_SECONDS = 120.0
TYPE_AGAIN_SECONDS = 3.0
COUNT = "(i=0; while :; do i=$((i+1)); echo count-$i; sleep 0.2; done) > /dev/console &"
_COUNT = re.compile(r"count-(\d+)")


def counting(image: Path, *, vm_id: int = 7) -> VmOrder:
    """A guest that counts on its console, five times a second."""
    vm = order(image, vm_id=vm_id)
    vm.spec.template.context.start_script = COUNT
    return vm


async def text_of(driver: LibvirtDriver, vm: VmOrder) -> str:
    """All that the guest has said."""
    return (await driver.console_log(vm.host_id, vm.uid, 0)).decode(errors="replace")


async def says(driver: LibvirtDriver, vm: VmOrder, text: str, *, times: int = 1) -> str:
    """The console's log once it holds the text."""

    async def found() -> str:
        log = await text_of(driver, vm)
        return log if log.count(text) >= times else ""

    return await eventually(found, what=f"the guest says {text!r}", within=BOOT_SECONDS)


async def last_count(driver: LibvirtDriver, vm: VmOrder) -> int:
    """The last number that the guest has said; 0 for none."""
    found = _COUNT.findall(await text_of(driver, vm))
    return int(found[-1]) if found else 0


async def count_reaches(driver: LibvirtDriver, vm: VmOrder, number: int) -> None:
    """Waits until the guest has counted that far."""

    async def reached() -> bool:
        return await last_count(driver, vm) >= number

    await eventually(reached, what=f"the guest counts to {number}", within=BOOT_SECONDS)


async def answer(driver: LibvirtDriver, vm: VmOrder, command: str, expected: str) -> str:
    """Types a command into the guest's console, again and again until it answers with the expected text."""

    console = await driver.open_console(vm.host_id, vm.uid)
    clock = asyncio.get_running_loop()
    typed_at = -TYPE_AGAIN_SECONDS

    async def answered() -> str:
        nonlocal typed_at
        if clock.time() - typed_at >= TYPE_AGAIN_SECONDS:
            typed_at = clock.time()
            await console.write(f"\n{command}\n".encode())
        log = await text_of(driver, vm)
        return log if expected in log else ""

    try:
        return await eventually(answered, what=f"the guest answers {expected!r} to {command!r}", within=60)
    finally:
        await console.close()
