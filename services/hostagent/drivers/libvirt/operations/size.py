"""CPU, memory and disks that become larger or smaller: at once where the guest allows it, else at its next start."""

from __future__ import annotations

from collections.abc import Awaitable
from xml.etree.ElementTree import Element

from moln.compute.v1.vm_pb2 import VmSize, VmStatus
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.hostagent.drivers.libvirt import shape
from services.hostagent.drivers.libvirt.operations.base import Op, failed
from services.hostagent.drivers.ports import DONE, Outcome
from services.hostagent.storage import qemu_img

MIB = 1024 * 1024
SHARES_PER_CORE = 1024


async def resize(op: Op) -> Outcome:
    """Never fails for what only a restart can bring: that is said in `needs_restart` and `restart_fields`."""
    wanted = op.parameters.size
    if not await op.live.runs(op.uid):
        return Outcome(True, cleared=("needs_restart", "restart_fields", "size"))
    op.work.progress(op.work, "resize", 0)
    domain = await op.live.describe(op.uid)
    waiting = []
    if wanted.vcpus and not await _vcpus(op, domain, wanted.vcpus):
        waiting.append("vcpus")
    if wanted.memory_mib and not await _memory(op, domain, wanted.memory_mib * 1024):
        waiting.append("memory_mib")
    if wanted.cpu_percent and not await _share(op, wanted.cpu_percent):
        waiting.append("cpu_percent")
    return await _told(op, wanted, waiting)


async def _told(op: Op, wanted: VmSize, waiting: list[str]) -> Outcome:
    domain = await op.live.describe(op.uid)
    size = size_of(domain)
    size.cpu_percent = 0 if "cpu_percent" in waiting else wanted.cpu_percent
    facts = VmStatus(size=size, needs_restart=bool(waiting), restart_fields=waiting)
    return Outcome(True, facts=facts, cleared=() if waiting else ("needs_restart", "restart_fields"))


def size_of(domain: Element) -> VmSize:
    """vCPUs and memory of a domain as it runs."""
    kib = shape.memory_kib(domain, "currentMemory") or shape.memory_kib(domain, "memory")
    return VmSize(vcpus=shape.shape_of(domain).vcpus, memory_mib=kib // 1024)


async def _vcpus(op: Op, domain: Element, count: int) -> bool:
    if count == shape.shape_of(domain).vcpus:
        return True
    if count > shape.max_vcpus(domain):
        return False
    return await _tried(op.live.set_vcpus(op.uid, count))


async def _memory(op: Op, domain: Element, kib: int) -> bool:
    balloon = domain.find("devices/memballoon")
    has_balloon = balloon is not None and balloon.get("model") != "none"
    now = shape.memory_kib(domain, "currentMemory") or shape.memory_kib(domain, "memory")
    if kib == now:
        return True
    if kib > shape.memory_kib(domain, "memory") or not (has_balloon or op.tools.endpoint.domain_type == "test"):
        return False
    return await _tried(op.live.set_memory(op.uid, kib))


async def _share(op: Op, percent: int) -> bool:
    """A hypervisor that cannot weigh guests does not do so after a restart either."""
    if not op.tools.endpoint.has_cpu_shares or op.tools.endpoint.domain_type == "test":
        return True
    return await _tried(op.live.set_shares(op.uid, max(2, percent * SHARES_PER_CORE // 100)))


async def _tried(change: Awaitable[None]) -> bool:
    """False where the guest or the hypervisor refuses."""
    try:
        await change
    except MolnError:
        return False
    return True


async def resize_disk(op: Op) -> Outcome:
    """Makes a disk larger, also under a guest that runs. A disk that is not made yet is made in its new size."""
    disk_id, size_bytes = op.parameters.disk_id, op.parameters.disk_size_mib * MIB
    op.work.progress(op.work, "resize_disk", 0)
    if await op.live.runs(op.uid):
        disk = shape.find_disk(await op.live.describe(op.uid), disk_id)
        if disk is None:
            raise MolnError(Reason.DISK_NOT_FOUND, f"the guest has no disk {disk_id}")
        try:
            await op.live.resize_disk(op.uid, shape.target_of(disk), size_bytes)
        except MolnError as err:
            raise failed(err.message) from err
        return DONE
    for path in op.folder.disk_files(disk_id):
        format = path.suffix.lstrip(".")
        if (await qemu_img.inspect(path, format)).virtual_size_bytes < size_bytes:
            await qemu_img.enlarge(path, format, size_bytes)
    return DONE


def disk_bytes(op: Op, disk_id: int) -> int:
    """How large a disk is by the VM's description; 0 where it does not say."""
    return sum(disk.size_mib * MIB for disk in op.order.spec.template.disks if disk.disk_id == disk_id)
