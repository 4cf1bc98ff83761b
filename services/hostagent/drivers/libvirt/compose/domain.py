"""A whole domain out of an order."""

from __future__ import annotations

from moln.compute.v1.template_pb2 import VmTemplate
from moln.compute.v1.vm_pb2 import NicAddress
from moln.node.v1.node_service_pb2 import VmOrder
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.hostagent.drivers.libvirt.compose.disks import disks_of
from services.hostagent.drivers.libvirt.compose.endpoint import (
    KINDS,
    XEN_PARAVIRTUAL,
    Endpoint,
    Kind,
    default_machine,
)
from services.hostagent.drivers.libvirt.compose.sizes import cpu_of, memory_of, tune_of, vcpus_of
from services.hostagent.drivers.libvirt.compose.support import check_supported
from services.hostagent.drivers.libvirt.spec import (
    BootSpec,
    Devices,
    DiskSpec,
    DomainSpec,
    GraphicsSpec,
    Mark,
    NicSpec,
)
from services.hostagent.network.spec import tap_name
from services.hostagent.storage.folders import VmFolder

CONTAINER_INIT = "/sbin/init"


def compose(order: VmOrder, folder: VmFolder, endpoint: Endpoint) -> DomainSpec:
    """The domain. Raises MolnError CAPABILITY for what this hypervisor cannot do."""
    template, type, kind = order.spec.template, endpoint.domain_type, KINDS[endpoint.domain_type]
    check_supported(template, type)
    machine = template.boot.machine or default_machine(
        type, template.boot.architecture or endpoint.architecture, is_secure=template.boot.is_secure_boot
    )
    vcpus, most = vcpus_of(order)
    disks = tuple(disks_of(order, folder, machine, kind))
    return DomainSpec(
        mark=Mark(order.vm_id, order.uid, order.epoch, endpoint.cloud_uid),
        name=domain_name(order.vm_id, order.uid),
        type=type,
        memory=memory_of(order, kind, most),
        vcpus=vcpus,
        max_vcpus=most,
        tune=tune_of(order, endpoint, most),
        architecture=_architecture(template, endpoint),
        machine="" if type == "test" else machine,
        boot=_boot(order, folder, machine, type),
        features=_features(template, machine, kind),
        cpu=cpu_of(template, most, type),
        disks=disks,
        nics=tuple(_nics(order, template, endpoint, kind)),
        console_log=folder.console_log if type in ("qemu", "kvm", "xen") else None,
        graphics=_graphics(template, kind),
        devices=_devices(order, disks, machine, type, kind),
        raw=template.raw.libvirt_xml,
        is_validated=template.raw.is_validated,
    )


def domain_name(vm_id: int, uid: str) -> str:
    """Unique among all clouds that use one hypervisor."""
    return f"moln-{vm_id}-{uid[:8]}"


def nic_of(address: NicAddress, model: str, uid: str, endpoint: Endpoint, *, boot_order: int = 0) -> NicSpec:
    """One interface. Also for one that is plugged in."""
    return NicSpec(
        mac=address.mac,
        bridge=address.bridge if endpoint.has_bridges else "",
        device=tap_name(uid, address.nic_id),
        model=model or KINDS[endpoint.domain_type].nic_model,
        mtu=address.mtu,
        boot_order=boot_order,
    )


def _architecture(template: VmTemplate, endpoint: Endpoint) -> str:
    """The test hypervisor knows none but its own."""
    return "" if endpoint.domain_type == "test" else template.boot.architecture or endpoint.architecture


def _boot(order: VmOrder, folder: VmFolder, machine: str, type: str) -> BootSpec:
    stated, volumes = order.spec.template.boot, order.volumes
    if type == "lxc":
        return BootSpec("exe", init=CONTAINER_INIT)
    is_uefi = stated.firmware == "uefi"
    return BootSpec(
        type="linux" if machine == XEN_PARAVIRTUAL else "hvm",
        firmware=stated.firmware,
        is_secure=stated.is_secure_boot,
        nvram=folder.nvram if is_uefi and type in ("qemu", "kvm") else None,
        kernel=folder.kernel if volumes.HasField("kernel") else None,
        initrd=folder.initrd if volumes.HasField("initrd") else None,
        arguments=stated.kernel_arguments,
    )


def _features(template: VmTemplate, machine: str, kind: Kind) -> tuple[str, ...]:
    if machine == XEN_PARAVIRTUAL:
        return ()
    return (*kind.features, "smm") if template.boot.is_secure_boot else kind.features


def _nics(order: VmOrder, template: VmTemplate, endpoint: Endpoint, kind: Kind) -> list[NicSpec]:
    addresses = {address.nic_id: address for address in order.addresses.nics}
    boot = list(template.boot.order)
    nics = []
    for index, nic in enumerate(template.nics):
        address = addresses.get(nic.nic_id, NicAddress(nic_id=nic.nic_id))
        place = boot.index(f"nic{index}") + 1 if f"nic{index}" in boot else 0
        nics.append(nic_of(address, nic.model, order.uid, endpoint, boot_order=place))
    return nics


def _graphics(template: VmTemplate, kind: Kind) -> GraphicsSpec | None:
    stated = template.graphics
    if stated.type in ("", "none"):
        return None
    return GraphicsSpec(stated.type, stated.keymap, stated.video, tuple(stated.inputs), kind.screen_address)


def _devices(order: VmOrder, disks: tuple[DiskSpec, ...], machine: str, type: str, kind: Kind) -> Devices:
    template, console = order.spec.template, kind.console
    if type == "test":
        console = ""
    elif machine == XEN_PARAVIRTUAL:
        console = "console"
    pci = _pci(order)
    if not kind.has_extras:
        return Devices(console=console, pci_addresses=pci)
    return Devices(
        has_agent_channel=True,
        balloon="none" if template.memory.no_balloon else "virtio",
        has_usb="tablet" in template.graphics.inputs or any(disk.bus == "usb" for disk in disks),
        scsi_controller="virtio-scsi" if any(disk.bus == "scsi" for disk in disks) else "",
        has_rng=True,
        has_tpm=template.boot.has_tpm,
        console=console,
        has_no_video=True,
        pci_addresses=pci,
    )


def _pci(order: VmOrder) -> tuple[str, ...]:
    granted, asked = tuple(order.placement.granted.pci_addresses), len(order.spec.template.pci_devices)
    if len(granted) != asked:
        message = f"the VM asks for {asked} PCI device(s) and its placement grants {len(granted)}"
        raise MolnError(Reason.CAPABILITY, message)
    return granted
