"""The libvirt driver on a real QEMU: a guest boots, reads its context, answers on its network, and leaves nothing."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
from pathlib import Path

import pytest

from moln.node.v1.node_service_pb2 import ImageTicket, VmOrder
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.hostagent.drivers.libvirt.connection import LibvirtConnection
from services.hostagent.drivers.libvirt.driver import LibvirtDriver
from services.hostagent.drivers.libvirt.guests import Guests
from services.hostagent.drivers.libvirt.probe import boots, find_acceleration
from services.hostagent.drivers.libvirt.spec import CpuSpec
from services.hostagent.drivers.ports import Deed, End, Power, Seen
from services.hostagent.network import netlink
from services.hostagent.storage import qemu_img
from tests.integration.hostagent.libvirt.conftest import Open
from tests.support.deeds import Doer
from tests.support.eventually import eventually
from tests.support.hypervisor import add_nic, order

pytestmark = pytest.mark.timeout(300)
BOOT_SECONDS = 120.0


async def test_a_guest_boots_reads_its_context_answers_and_leaves_nothing(
    driver: LibvirtDriver, image: Path, bridge: str, uri: str, folder: Path
) -> None:
    doer, vm = Doer(driver), order(image, hostname="web-1")
    add_nic(vm, "10.98.0.7", bridge=bridge)
    vm.spec.template.context.start_script = "echo nonce-$((40+2)); [ -f /data/kept ] && echo kept; touch /data/kept"

    assert (await doer.do(Deed.START, vm)).is_done
    assert doer.steps == ["claim_folder", "stage_disks", "make_context", "connect_network", "start_guest"]
    log = await console_with(driver, vm, "hostname=web-1 eth0=10.98.0.7/24 ready")
    assert "nonce-42" in log
    assert "kept" not in log
    assert ping("10.98.0.7")

    await check_console(driver, vm)

    assert (await doer.do(Deed.SHUT_DOWN, vm)).is_done
    assert await doer.power(vm) is Power.OFF
    assert "powering off" in await text_of_console(driver, vm)
    assert await Guests(LibvirtConnection(uri)).all() == [], "a guest that is off stays defined nowhere"
    assert bridge not in await bridges()

    assert (await doer.do(Deed.START, vm)).is_done
    await console_with(driver, vm, "kept", times=1)
    assert (await doer.do(Deed.ERASE, vm)).is_done
    assert await doer.power(vm) is Power.ABSENT
    assert list((folder / "node" / "vms").glob("[!.]*")) == []
    assert bridge not in await bridges()


async def check_console(driver: LibvirtDriver, vm: VmOrder) -> None:
    console = await driver.open_console(1, vm.uid)
    await console.write(b"\necho typed-$((1+1)); ping -c1 10.98.0.1\n")
    shown = b""
    async with asyncio.timeout(60):
        async for data in console.output():
            shown += data
            if b"1 packets received" in shown:
                break
    assert b"typed-2" in shown
    await console.close()
    await console.close()


async def test_guests_outlive_the_agent_and_the_next_one_finds_them_and_hears_of_their_end(
    open_driver: Open, image: Path
) -> None:
    vm = order(image, vm_id=9)
    async with open_driver() as first:
        assert (await Doer(first).do(Deed.START, vm)).is_done
    async with open_driver() as second:
        doer, heard = Doer(second), list[Seen]()
        second.listen(heard.append)
        found = await doer.seen(vm)
        assert found is not None
        assert (found.vm_id, found.epoch, found.power) == (9, 1, Power.RUNNING)
        assert found.status is not None

        os.kill(pid_of(vm.uid), signal.SIGKILL)
        await eventually(lambda: heard and heard[-1].power is Power.OFF, what="the end is heard")
        assert [seen.end for seen in heard][-1] is End.CRASHED

        assert (await doer.do(Deed.START, vm)).is_done
        await console_with(second, vm, " ready")
        console = await second.open_console(1, vm.uid)
        await console.write(b"\npoweroff -f\n")
        await eventually(lambda: heard[-1].end is End.SHUT_DOWN, what="the shutdown from within is heard")
        await console.close()
        assert (await doer.do(Deed.ERASE, vm)).is_done


async def test_a_guest_that_does_not_listen_has_its_plug_pulled_after_the_grace(driver: LibvirtDriver) -> None:
    doer, vm = Doer(driver), empty_vm()
    assert (await doer.do(Deed.START, vm)).is_done
    assert (await doer.do(Deed.START, vm)).is_done, "a start is idempotent"
    outcome = await doer.do(Deed.SHUT_DOWN, vm, grace_s=0.5)
    assert (outcome.is_done, outcome.reason) == (True, Reason.PLUG_PULLED)
    assert await doer.power(vm) is Power.OFF


async def test_a_guest_that_the_agent_stopped_at_its_own_end_says_so_until_it_runs_again(driver: LibvirtDriver) -> None:
    doer, vm = Doer(driver), empty_vm()
    await doer.do(Deed.START, vm)
    await doer.do(Deed.HALT, vm, grace_s=0.1)
    halted = await doer.seen(vm)
    assert halted is not None
    assert halted.end is End.BY_AGENT
    await doer.do(Deed.START, vm)
    await doer.do(Deed.PLUG, vm)
    plugged = await doer.seen(vm)
    assert plugged is not None
    assert plugged.end is End.NONE


async def test_a_start_whose_image_has_vanished_leaves_nothing(
    driver: LibvirtDriver, datastore: Path, bridge: str, folder: Path
) -> None:
    vm = order(datastore / "absent.qcow2")
    add_nic(vm, "10.98.0.8", bridge=bridge)
    outcome = await Doer(driver).do(Deed.START, vm)
    assert (outcome.is_done, outcome.reason, outcome.step) == (False, Reason.IMAGE_VANISHED, "stage_disks")
    assert "absent.qcow2" in outcome.message
    assert list((folder / "node" / "vms").glob("[!.]*")) == []
    assert bridge not in await bridges()


async def test_a_start_that_the_hypervisor_refuses_is_undone_and_told_in_its_own_words(
    driver: LibvirtDriver, bridge: str, folder: Path
) -> None:
    vm = empty_vm()
    vm.spec.template.cpu.model = "no-such-cpu"
    add_nic(vm, "10.98.0.9", bridge=bridge)
    outcome = await Doer(driver).do(Deed.START, vm)
    assert (outcome.reason, outcome.step) == (Reason.START_FAILED, "start_guest")
    assert "no-such-cpu" in outcome.message
    assert list((folder / "node" / "vms").glob("[!.]*")) == []
    assert bridge not in await bridges()


async def test_an_interrupted_start_is_undone(driver: LibvirtDriver, image: Path, folder: Path) -> None:
    doer, vm = Doer(driver), order(image)
    ended = doer.begin(Deed.START, vm)
    await eventually(lambda: doer.steps, what="the start is under way")
    driver.interrupt(1, vm.vm_id)
    assert (await ended).was_interrupted
    assert await doer.power(vm) is Power.ABSENT
    assert list((folder / "node" / "vms").glob("[!.]*")) == []


async def test_what_the_driver_cannot_make_is_refused_by_name(driver: LibvirtDriver) -> None:
    vm = empty_vm()
    vm.spec.template.pci_devices.add(vendor="10de")
    outcome = await Doer(driver).do(Deed.START, vm)
    assert outcome.reason is Reason.CAPABILITY
    assert "PCI" in outcome.message


async def test_an_image_that_the_node_does_not_see_is_fetched_once_and_checked(
    driver: LibvirtDriver, datastore: Path, folder: Path
) -> None:
    await qemu_img.create_blank(datastore / "image-3", "qcow2", 2**20)
    content = (datastore / "image-3").read_bytes()
    for checksum, reason in (("0" * 64, Reason.CHECKSUM_MISMATCH), (hashlib.sha256(content).hexdigest(), None)):
        vm = order(Path("/elsewhere"), datastore_id=2)
        vm.volumes.disks[0].sha256 = checksum
        vm.tickets.append(ImageTicket(image_id=3, address="stands for imagesvc", ticket="t"))
        assert (await Doer(driver).do(Deed.START, vm)).reason == reason
    assert [file.name for file in (folder / "node" / "cache").iterdir()] == ["image-3.qcow2"]


async def test_the_console_of_a_guest_that_is_off_is_refused(driver: LibvirtDriver) -> None:
    with pytest.raises(MolnError, match="does not run") as refused:
        await driver.open_console(1, order(None).uid)
    assert refused.value.reason is Reason.STATE_FORBIDS


async def test_the_probe_guest_boots_and_what_was_found_holds_until_the_next_boot(uri: str, folder: Path) -> None:
    connection = LibvirtConnection(uri)
    assert await boots(connection, "qemu", folder, CpuSpec())
    nothing = frozenset[str]()
    without = await find_acceleration(connection, nothing, folder, "boot-1", CpuSpec())
    assert (without.domain_type, "emulated" in without.warning) == ("qemu", True)
    kept = (folder / "acceleration.json").read_text()
    assert await find_acceleration(connection, frozenset({"kvm"}), folder, "boot-1", CpuSpec()) == without
    assert (folder / "acceleration.json").read_text() == kept
    await connection.close()


async def test_the_inventory_tells_the_machine_and_which_datastores_it_sees(driver: LibvirtDriver) -> None:
    facts = await driver.inventory(1, [])
    assert facts.cpus == os.cpu_count()
    assert facts.memory_mib > 256
    assert facts.disk_mib > 0
    assert (facts.driver, facts.hypervisor, facts.architecture) == ("libvirt", "qemu", os.uname().machine)
    assert "console" in facts.capabilities
    await driver.load(1)
    assert (await driver.load(1)).memory_mib > 0


def empty_vm() -> VmOrder:
    """A guest that never boots: its only disk is empty."""
    vm = order(None)
    vm.spec.template.disks.add(disk_id=0, size_mib=1)
    vm.spec.template.memory_mib = 32
    return vm


async def console_with(driver: LibvirtDriver, vm: VmOrder, text: str, *, times: int = 1) -> str:
    """The console's log once it holds the text."""

    async def found() -> str:
        log = await text_of_console(driver, vm)
        return log if log.count(text) >= times else ""

    return await eventually(found, what=f"the guest says {text!r}", within=BOOT_SECONDS)


async def text_of_console(driver: LibvirtDriver, vm: VmOrder) -> str:
    return (await driver.console_log(1, vm.uid, 0)).decode(errors="replace")


async def bridges() -> list[str]:
    return [bridge.name for bridge in await asyncio.to_thread(netlink.marked)]


def ping(address: str) -> bool:
    words = ["busybox", "ping", "-c", "3", "-W", "5", address]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def pid_of(uid: str) -> int:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and uid.encode() in _command_of(entry):
            return int(entry.name)
    raise AssertionError(f"no process of guest {uid}")


def _command_of(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""
