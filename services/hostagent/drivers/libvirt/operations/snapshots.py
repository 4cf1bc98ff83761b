"""Snapshots of all disks, with the guest's memory where it runs. They are within the qcow2 disks, the list beside them.

The hypervisor knows a snapshot only while something is done with it: it is told anew each time, so that definitions may
come and go. A guest that is off goes back to the disks of a snapshot, and stays off.
"""

from __future__ import annotations

import time
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from moln.compute.v1.vm_pb2 import VmStatus
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.hostagent.drivers.libvirt import shape
from services.hostagent.drivers.libvirt.operations.base import Op, failed
from services.hostagent.drivers.libvirt.operations.size import disk_bytes
from services.hostagent.drivers.libvirt.saving import former_folder
from services.hostagent.drivers.libvirt.spec import Mark
from services.hostagent.drivers.libvirt.xml import parse
from services.hostagent.drivers.ports import Outcome
from services.hostagent.storage import qemu_img
from services.hostagent.storage.snapshots import Kept, SnapshotBook


async def create(op: Op) -> Outcome:
    """A snapshot of that name. Repeated by the same operation it is not made twice."""
    book, name = SnapshotBook(op.folder), op.parameters.snapshot
    before = book.find(name)
    if before is not None:
        if before.operation_id == op.operation.id:
            return told(book)
        raise failed(f"there is a snapshot {name} already")
    is_running = await op.live.runs(op.uid)
    made = Kept(name, time.time_ns(), is_running, operation_id=op.operation.id)
    op.work.progress(op.work, "make_snapshot", 0)
    if is_running:
        await _create_running(op, book, made)
    else:
        await _create_off(op, made)
    book.add(made)
    return told(book)


async def _create_running(op: Op, book: SnapshotBook, made: Kept) -> None:
    await op.live.job_ends(op.uid)
    xml = await op.live.snapshot_xml(op.uid, made.inner_name)  # a former agent may have made it
    if xml is None:
        _check_formats(op.uid, await op.live.describe(op.uid))
        try:
            xml = await op.live.snapshot(op.uid, _request(made), op.percent("make_snapshot"))
        except MolnError as err:
            raise failed(err.message) from err
    book.keep_xml(made.name, xml)
    await op.live.forget_snapshot(op.uid, made.inner_name)


async def _create_off(op: Op, made: Kept) -> None:
    done: list[Path] = []
    try:
        for path in _disks(op):
            if path.suffix != ".qcow2":
                raise failed(f"{path.name} is no qcow2 disk: it can hold no snapshots")
            known = {each.name for each in await qemu_img.inner_snapshots(path, "qcow2")}
            if made.inner_name not in known:
                done.append(path)
                await qemu_img.change_snapshot(path, "-c", made.inner_name)
    except MolnError:
        for path in done:
            await _drop(path, made.inner_name)
        raise


async def revert(op: Op) -> Outcome:
    """All disks, and the memory of a guest that runs, are as they were."""
    book, name = SnapshotBook(op.folder), op.parameters.snapshot
    kept = _found(book, name)
    op.work.progress(op.work, "revert", 0)
    if not await op.live.runs(op.uid):
        await _revert_off(op, kept)
    elif kept.has_memory:
        await _revert_running(op, book, kept)
    else:
        raise failed(f"snapshot {name} holds no memory: power the VM off, go back to it, and start it again")
    book.go_to(name)
    return told(book)


async def _revert_running(op: Op, book: SnapshotBook, kept: Kept) -> None:
    xml = book.xml(kept.name)
    if xml is None:
        raise failed(f"the memory of snapshot {kept.name} was made on another node: power the VM off to go back to it")
    snapshot = parse(xml)
    domain = snapshot.find("domain")
    if domain is None:
        raise failed(f"what is kept of snapshot {kept.name} is not whole")
    if shape.has_plugged_vcpus(domain):
        raise failed(
            f"snapshot {kept.name} was made after vCPUs were plugged in: power the VM off to go back to its disks"
        )
    now = await op.live.describe(op.uid)
    difference = shape.shape_of(domain).difference(shape.shape_of(now))
    if difference:
        raise failed(f"the guest has changed since snapshot {kept.name}: {difference}; undo that, or power the VM off")
    try:
        await op.live.revert(op.uid, kept.inner_name, _of_this_node(op, xml))
    except MolnError as err:
        raise failed(err.message) from err


def _of_this_node(op: Op, xml: str) -> str:
    """The snapshot with the mark of the placement, and the paths, that the VM has now."""
    mark = Mark(op.order.vm_id, op.uid, op.order.epoch, op.tools.endpoint.cloud_uid)
    here = former_folder(xml, op.uid)
    root = parse(xml)
    for name in ("domain", "inactiveDomain"):
        found = root.find(name)
        if found is not None:
            text = ElementTree.tostring(found, encoding="unicode")
            moved = parse(shape.adapted(text, mark, here=Path(here or op.folder.path), there=op.folder.path))
            moved.tag = name
            root[list(root).index(found)] = moved
    return ElementTree.tostring(root, encoding="unicode")


async def _revert_off(op: Op, kept: Kept) -> None:
    disks = _numbered(op)
    for _disk_id, path in disks:
        known = {each.name for each in await qemu_img.inner_snapshots(path, path.suffix.lstrip("."))}
        if kept.inner_name not in known:
            raise failed(f"{path.name} is not part of snapshot {kept.name}: it came later; detach it first")
    for disk_id, path in disks:
        await qemu_img.go_back(path, kept.inner_name, disk_bytes(op, disk_id))
    op.folder.drop_memory()


async def delete(op: Op) -> Outcome:
    """The snapshot is gone; the VM stays as it is. One that is not there is gone."""
    book, name = SnapshotBook(op.folder), op.parameters.snapshot
    kept = book.find(name)
    if kept is None:
        return told(book)
    op.work.progress(op.work, "delete_snapshot", 0)
    if await op.live.runs(op.uid):
        await _delete_running(op, book, kept)
    else:
        for path in _disks(op):
            await _drop(path, kept.inner_name)
    book.remove(name)
    return told(book)


async def _delete_running(op: Op, book: SnapshotBook, kept: Kept) -> None:
    xml = book.xml(kept.name)
    xml = _of_this_node(op, xml) if xml else _described(kept, await op.live.describe(op.uid))
    try:
        await op.live.delete_snapshot(op.uid, kept.inner_name, xml)
    except MolnError as err:
        raise failed(err.message) from err


def told(book: SnapshotBook) -> Outcome:
    """Done; with the whole list as it is now."""
    found = [kept.message() for kept in book.all()]
    return Outcome(True, facts=VmStatus(snapshots=found), cleared=() if found else ("snapshots",))


def _found(book: SnapshotBook, name: str) -> Kept:
    kept = book.find(name)
    if kept is None:
        raise MolnError(Reason.SNAPSHOT_NOT_FOUND, f"the VM has no snapshot {name} on this node")
    return kept


def _disks(op: Op) -> list[Path]:
    """The disks that the guest writes to, which are those that snapshots are made of."""
    return [path for _disk_id, path in _numbered(op)]


def _numbered(op: Op) -> list[tuple[int, Path]]:
    """The same with their numbers."""
    read_only = {disk.disk_id for disk in op.order.spec.template.disks if disk.is_read_only or disk.device}
    wanted = [disk.disk_id for disk in op.order.spec.template.disks if disk.disk_id not in read_only]
    return [(disk_id, path) for disk_id in wanted for path in op.folder.disk_files(disk_id)]


async def _drop(path: Path, name: str) -> None:
    known = {each.name for each in await qemu_img.inner_snapshots(path, path.suffix.lstrip("."))}
    if name in known:
        await qemu_img.change_snapshot(path, "-d", name)


def _check_formats(uid: str, domain: Element) -> None:
    """Refuses before the guest is stopped for it; the hypervisor would only find out then."""
    for disk in domain.iterfind("devices/disk"):
        driver = disk.find("driver")
        is_written = disk.find("readonly") is None and disk.get("device") == "disk"
        if is_written and driver is not None and driver.get("type") == "raw":
            name = shape.source_of(disk)
            raise failed(f"{name.name if name else uid} is no qcow2 disk: it can hold no snapshots")


def _request(made: Kept) -> str:
    root = Element("domainsnapshot")
    SubElement(root, "name").text = made.inner_name
    return ElementTree.tostring(root, encoding="unicode")


def _described(kept: Kept, domain: Element) -> str:
    """What the hypervisor is told of a snapshot that was made while the guest was off, to delete it."""
    root = Element("domainsnapshot")
    SubElement(root, "name").text = kept.inner_name
    SubElement(root, "state").text = "shutoff"
    SubElement(root, "creationTime").text = str(kept.time_ns // 10**9)
    SubElement(root, "memory", {"snapshot": "no"})
    disks = SubElement(root, "disks")
    for disk in domain.iterfind("devices/disk"):
        is_written = disk.find("readonly") is None and disk.get("device") == "disk"
        SubElement(disks, "disk", {"name": shape.target_of(disk), "snapshot": "internal" if is_written else "no"})
    root.append(domain)
    return ElementTree.tostring(root, encoding="unicode")
