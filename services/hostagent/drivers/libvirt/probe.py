"""Finds out whether KVM really works: boots a tiny guest with it, through the hypervisor that will run the others.

A list of capabilities is not believed: there are machines where /dev/kvm opens and guests crash or hang. The answer
holds for one boot of the machine. Must not decide for hypervisors on other machines: a file of ours is not there.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from services.hostagent.drivers.libvirt.connection import Flags, HypervisorError, LibvirtConnection, Raw, or_none
from services.hostagent.drivers.libvirt.spec import CpuSpec, Devices, DiskSpec, DomainSpec, Mark, MemorySpec
from services.hostagent.drivers.libvirt.xml import domain_xml

TEXT = b"moln-probe-ok"
PROBE_SECONDS = 10.0
MEMORY_MIB = 32
LONGEST_REASON = 300
NO_KVM = "guests are emulated and slow: the hypervisor offers no KVM (is /dev/kvm there, and open to it?)"
_POLL_S = 0.05
# The boot sector of probe.S, without the zeros that follow.
_SECTOR_START = bytes.fromhex(
    "fa31c08ed88ec0bf0010b90018f3ab66c70600100320000066c70600200330000066c7060030830000000f20e06683c8"
    "200f22e066b8001000000f22d866b9800000c00f32660d000100000f300f20c0660d010000800f22c00f0116907cea63"
    "7c0800be967c000066baf8038a06ffc684c07403eeebf5f4ebfd660f1f440000000000000000000000000000009a2000"
    "0f00807c00006d6f6c6e2d70726f62652d6f6b0a"
)
SECTOR = _SECTOR_START.ljust(510, b"\0") + b"\x55\xaa"


@dataclass(frozen=True, slots=True)
class Acceleration:
    """What runs guests: the domain type (`kvm` or `qemu`), and why it is not KVM."""

    domain_type: str
    warning: str = ""


async def find_acceleration(
    connection: LibvirtConnection, domain_types: frozenset[str], folder: Path, boot_id: str, cpu: CpuSpec
) -> Acceleration:
    """KVM where a guest runs with it, emulation otherwise. The answer is kept in `folder` until the next boot."""
    kept = _read(folder / "acceleration.json", boot_id, connection.uri)
    if kept is not None:
        return kept
    found = await _find(connection, domain_types, folder, cpu)
    document = {"boot_id": boot_id, "uri": connection.uri, **asdict(found)}
    (folder / "acceleration.json").write_text(json.dumps(document))
    return found


async def _find(
    connection: LibvirtConnection, domain_types: frozenset[str], folder: Path, cpu: CpuSpec
) -> Acceleration:
    if "kvm" not in domain_types:
        return Acceleration("qemu", NO_KVM)
    try:
        runs = await boots(connection, "kvm", folder, cpu)
        reason = f"a probe guest did not boot with it within {PROBE_SECONDS:g} s"
    except HypervisorError as err:
        runs, reason = False, err.message.splitlines()[0][:LONGEST_REASON]
    if runs:
        return Acceleration("kvm")
    return Acceleration("qemu", f"guests are emulated and slow: KVM is there but does not work ({reason})")


async def boots(connection: LibvirtConnection, domain_type: str, folder: Path, cpu: CpuSpec) -> bool:
    """Whether a guest of this type says its word in time. Raises HypervisorError where it cannot even be created."""
    with tempfile.TemporaryDirectory(prefix="probe-", dir=folder) as work:
        Path(work).chmod(0o711)
        disk, log = Path(work) / "probe.raw", Path(work) / "probe.log"
        disk.write_bytes(SECTOR)
        disk.chmod(0o666)
        spec = _spec(domain_type, disk, log, cpu)
        await connection.call(lambda raw: raw.createXML(domain_xml(spec), Flags.AUTODESTROY), what="probing")
        try:
            return await _says(log)
        finally:
            await connection.call(lambda raw: _destroy(raw, spec.uid), what="ending the probe")


def _spec(domain_type: str, disk: Path, log: Path, cpu: CpuSpec) -> DomainSpec:
    uid = str(uuid.uuid4())
    disks = (DiskSpec(disk, "raw", "hda", "ide", boot_order=1),)
    mark = Mark(vm_id=0, uid=uid, epoch=0, cloud_uid="")
    devices = Devices(console="serial", has_usb=False, has_no_video=True)
    return DomainSpec(
        mark, f"moln-probe-{uid[:8]}", domain_type, MemorySpec(MEMORY_MIB), 1, machine="pc",
        features=("acpi", "apic"), cpu=cpu, disks=disks, console_log=log, devices=devices,
    )  # fmt: skip


async def _says(log: Path) -> bool:
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            while True:
                if log.exists() and TEXT in log.read_bytes():
                    return True
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        return False


def _destroy(raw: Raw, uid: str) -> None:
    or_none(lambda: raw.lookupByUUIDString(uid).destroy())


def _read(file: Path, boot_id: str, uri: str) -> Acceleration | None:
    try:
        document = json.loads(file.read_text())
        is_same = document["boot_id"] == boot_id and document["uri"] == uri
        return Acceleration(document["domain_type"], document["warning"]) if is_same else None
    except (OSError, ValueError, KeyError):
        return None
