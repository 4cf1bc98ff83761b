"""Looking into a real guest: its screen by VNC, a picture of it, and the agent in it."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path

import pytest

from moln.node.v1.node_service_pb2 import AgentCommand, AgentExec, AgentFreeze, AgentPing, AgentThaw, VmOrder
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.hostagent.drivers.libvirt.driver import LibvirtDriver
from services.hostagent.drivers.libvirt.inside import LibvirtInside
from services.hostagent.drivers.libvirt.picture import PNG_SIGNATURE
from services.hostagent.drivers.ports import Deed, Seen
from tests.support.deeds import Doer
from tests.support.eventually import eventually
from tests.support.hypervisor import add_nic, order

pytestmark = pytest.mark.timeout(300)
BOOT_SECONDS = 150.0
RFB = b"RFB 003.008\n"


def inside_of(driver: LibvirtDriver) -> LibvirtInside:
    assert driver.inside is not None
    return driver.inside


def small_vm() -> VmOrder:
    """A guest that boots nothing and stays."""
    vm = order(None)
    vm.spec.template.memory_mib = 32
    return vm


async def ask(driver: LibvirtDriver, vm: VmOrder, command: AgentCommand, *, within: float = 30.0) -> object:
    async with asyncio.timeout(within):
        return await inside_of(driver).ask_agent(1, vm.uid, command)


def command(*words: str, data: bytes = b"", seconds: int = 20, most: int = 4096) -> AgentCommand:
    return AgentCommand(exec=AgentExec(words=words, input=data, seconds=seconds, max_bytes=most))


async def refusal(driver: LibvirtDriver, vm: VmOrder, wanted: AgentCommand) -> MolnError:
    with pytest.raises(MolnError) as caught:
        await ask(driver, vm, wanted)
    return caught.value


async def answering(driver: LibvirtDriver, vm: VmOrder) -> bool:
    try:
        await ask(driver, vm, AgentCommand(ping=AgentPing()))
    except MolnError as err:
        assert err.reason is Reason.AGENT_SILENT
        return False
    return True


@pytest.mark.feature("screen by VNC", "run")
@pytest.mark.feature("picture of the screen", "run")
async def test_viewers_see_the_screen_several_at_a_time_and_a_picture_is_png(driver: LibvirtDriver) -> None:
    vm = small_vm()
    vm.spec.template.graphics.type = "vnc"
    assert (await Doer(driver).do(Deed.START, vm)).is_done
    first, second = [await inside_of(driver).open_screen(1, vm.uid) for _ in range(2)]
    for screen in (first, second):
        output = screen.output()
        assert await anext(output) == RFB
        await screen.write(RFB)
        assert await anext(output) == b"\x01\x01", "one kind of security: none"
        await screen.close()
        await screen.close()

    found = await inside_of(driver).take_screenshot(1, vm.uid)
    assert found.png.startswith(PNG_SIGNATURE)
    assert struct.unpack(">II", found.png[16:24]) == (found.width, found.height)
    assert (found.width, found.height) >= (640, 400)


async def test_a_guest_without_a_screen_or_that_is_off_says_so(driver: LibvirtDriver) -> None:
    vm = small_vm()
    assert (await Doer(driver).do(Deed.START, vm)).is_done
    for look in (inside_of(driver).open_screen, inside_of(driver).take_screenshot):
        with pytest.raises(MolnError, match="graphics") as caught:
            await look(1, vm.uid)
        assert caught.value.reason is Reason.SCREEN_MISSING
    await Doer(driver).do(Deed.PLUG, vm)
    with pytest.raises(MolnError) as caught:
        await inside_of(driver).take_screenshot(1, vm.uid)
    assert caught.value.reason is Reason.STATE_FORBIDS


async def test_a_guest_without_an_agent_says_so_at_once(driver: LibvirtDriver) -> None:
    vm = small_vm()
    assert (await Doer(driver).do(Deed.START, vm)).is_done
    for wanted in (AgentCommand(ping=AgentPing()), command("true"), AgentCommand(thaw=AgentThaw())):
        refused = await refusal(driver, vm, wanted)
        assert refused.reason is Reason.AGENT_SILENT
        assert "qemu-guest-agent" in refused.message


@pytest.mark.feature("commands in the guest", "run")
@pytest.mark.feature("held writes", "run")
@pytest.mark.feature("addresses told by the agent", "run")
async def test_the_agent_runs_commands_freezes_and_tells_addresses(
    driver: LibvirtDriver, image: Path, bridge: str
) -> None:
    vm, heard = order(image), list[Seen]()
    add_nic(vm, "10.98.0.7", bridge=bridge)
    driver.listen(heard.append)
    assert (await Doer(driver).do(Deed.START, vm)).is_done
    await eventually(lambda: answering(driver, vm), within=BOOT_SECONDS, what="the agent answers")

    await check_commands(driver, vm)
    await check_freezing(driver, vm)
    told = lambda: any(seen.addresses == ("10.98.0.7",) for seen in heard)  # noqa: E731
    await eventually(told, within=60, what="the guest's address is told")


async def check_commands(driver: LibvirtDriver, vm: VmOrder) -> None:
    inside = inside_of(driver)
    answer = await inside.ask_agent(1, vm.uid, command("sh", "-c", "cat; echo err >&2; exit 3", data=b"a b\n"))
    assert (answer.exit_code, answer.output, answer.error_output) == (3, b"a b\n", b"err\n")
    answer = await inside.ask_agent(1, vm.uid, command("echo", "$HOME; `id`"))
    assert answer.output == b"$HOME; `id`\n", "no shell is between"
    answer = await inside.ask_agent(1, vm.uid, command("seq", "10000", most=100))
    assert (len(answer.output), answer.is_truncated) == (100, True)

    absent = await refusal(driver, vm, command("/no/such/program"))
    assert absent.reason is Reason.EXEC_REFUSED
    assert "no/such/program" in absent.message
    endless = await refusal(driver, vm, command("sleep", "60", seconds=1))
    assert endless.reason is Reason.EXEC_UNFINISHED


async def check_freezing(driver: LibvirtDriver, vm: VmOrder) -> None:
    inside = inside_of(driver)
    frozen = await inside.ask_agent(1, vm.uid, AgentCommand(freeze=AgentFreeze(seconds=60)))
    assert frozen.filesystems >= 1
    again = await inside.ask_agent(1, vm.uid, AgentCommand(freeze=AgentFreeze(seconds=60)))
    assert again.filesystems == 0
    thawed = await inside.ask_agent(1, vm.uid, AgentCommand(thaw=AgentThaw()))
    assert thawed.filesystems == frozen.filesystems

    await inside.ask_agent(1, vm.uid, AgentCommand(freeze=AgentFreeze(seconds=1)))

    async def writes_go_on() -> bool:
        try:
            answer = await inside.ask_agent(1, vm.uid, command("true"))
        except MolnError:
            return False
        return answer.exit_code == 0

    await eventually(writes_go_on, within=30, what="it thaws by itself")
