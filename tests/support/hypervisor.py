"""A real hypervisor for tests: a libvirtd of their own, the demo guest, and orders as the gateway would send them."""

from __future__ import annotations

import functools
import os
import sys
import uuid
from pathlib import Path

from moln.compute.v1 import vm_pb2
from moln.image.v1.image_pb2 import Datastore
from moln.node.v1.node_service_pb2 import VmOrder
from services.common.runtime.process import READY_FILE, read_ready
from services.devstack.guestimage import GuestImageError, build_guest_image
from services.devstack.guestimage.packages import default_cache
from tests.support.eventually import eventually_sync
from tests.support.processes import Processes
from tests.support.real import needs_root, programs, real_part

CLOUD = "cloud-of-the-test"
ROOT = Path(__file__).parents[2]


def private_libvirtd(running: Processes, folder: Path) -> str:
    """Starts a libvirtd in `folder` and returns its URI; skips or fails the test where that cannot be."""
    real_part("libvirtd", programs("libvirtd", "qemu-system-x86_64", "qemu-img"))
    real_part("root", needs_root)
    ready = folder / "libvirtd.ready"
    running.start(
        [sys.executable, "-m", "services.devstack.libvirtd", "--state", folder / "libvirtd"],
        env={READY_FILE: str(ready)}, cwd=ROOT, name="libvirtd",
    )  # fmt: skip
    return eventually_sync(lambda: (read_ready(ready) or {}).get("libvirt", ""), what="libvirtd is ready", within=90)


@functools.cache
def _guest_image() -> Path | str:
    target = default_cache() / "guests" / f"test-{os.getpid()}.qcow2"
    try:
        return build_guest_image(target)
    except GuestImageError as err:
        return str(err)


def guest_image(folder: Path) -> Path:
    """A file of the demo guest's image, of the test's own."""
    found = _guest_image()
    real_part("demo guest", lambda: found if isinstance(found, str) else None)
    assert isinstance(found, Path)
    target = folder / "guest.qcow2"
    target.write_bytes(found.read_bytes())
    return target


def remove_built_image() -> None:
    """What `guest_image` has put into the cache for this run."""
    (default_cache() / "guests" / f"test-{os.getpid()}.qcow2").unlink(missing_ok=True)


def datastore(folder: Path) -> Datastore:
    """The folder as datastore 1, with the mark that nodes know it by."""
    (folder / ".moln-datastore").write_text("mark-1\n")
    made = Datastore(id=1)
    made.spec.path, made.status.mark = str(folder), "mark-1"
    return made


def order(image: Path | None, *, vm_id: int = 7, hostname: str = "web-1", datastore_id: int = 1) -> VmOrder:
    """An order to run one small guest whose only disk is made from `image`."""
    uid = str(uuid.uuid4())
    made = VmOrder(host_id=1, vm_id=vm_id, uid=uid, epoch=1)
    made.spec.uid, made.spec.name = uid, hostname
    template = made.spec.template
    template.vcpus, template.cpu_percent, template.memory_mib = 1, 50, 96
    made.intent.uid, made.intent.desired, made.intent.generation = uid, vm_pb2.DESIRED_STATE_RUNNING, 1
    made.placement.uid, made.placement.host_id, made.placement.epoch = uid, 1, 1
    if image is not None:
        template.disks.add(disk_id=0)
        made.intent.needs_volumes = True
        made.volumes.disks.add(
            disk_id=0, image_id=3, image_uid="image-3", source=str(image), source_format="qcow2",
            datastore_id=datastore_id, virtual_size_bytes=1, format="qcow2",
        )  # fmt: skip
    return made


def add_nic(made: VmOrder, ipv4: str, *, bridge: str, gateway: str = "10.98.0.1", nic_id: int = 0) -> None:
    """Gives the guest an interface on a bridge that the node makes, with the node as its gateway."""
    made.spec.template.nics.add(nic_id=nic_id, network_id=1)
    made.intent.needs_addresses = True
    last = [int(part) for part in ipv4.split(".")]
    mac = "02:00:" + ":".join(f"{part:02x}" for part in last)
    made.addresses.nics.add(
        nic_id=nic_id, network_id=1, network_uid=f"net-{bridge}", mac=mac, ipv4=ipv4, prefix_length=24,
        gateway=gateway, bridge=bridge, is_gateway_on_node=True, has_nat=True, dns=["192.0.2.53"],
    )  # fmt: skip
