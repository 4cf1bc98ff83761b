"""What a domain is made of: typed inputs of the XML builder. Holds values only; every choice is the caller's."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Mark:
    """What moln writes into a domain to know it again: VM, placement and cloud."""

    vm_id: int
    uid: str
    epoch: int
    cloud_uid: str
    is_imported: bool = False
    """Others made the guest: its definition is theirs, and stays when moln is done with it."""


@dataclass(frozen=True, slots=True)
class IoLimits:
    """Upper limits of a disk's throughput; 0 is no limit. The total excludes read and write of the same kind."""

    total_bytes_per_s: int = 0
    read_bytes_per_s: int = 0
    write_bytes_per_s: int = 0
    total_iops: int = 0
    read_iops: int = 0
    write_iops: int = 0


@dataclass(frozen=True, slots=True)
class DiskSpec:
    """A disk or CD-ROM in a file. `driver`: who reads it (`qemu`); empty where the hypervisor has one way only.

    `mount` makes it a file system of a container, at that path, instead of a device.
    """

    path: Path
    format: str
    target: str
    bus: str
    is_cdrom: bool = False
    is_read_only: bool = False
    cache: str = ""
    io: str = ""
    discard: str = ""
    serial: str = ""
    boot_order: int = 0
    limits: IoLimits = field(default_factory=IoLimits)
    driver: str = "qemu"
    mount: str = ""


@dataclass(frozen=True, slots=True)
class NicSpec:
    """An interface on a bridge of the node; with an empty bridge, the hypervisor's own user-mode network."""

    mac: str
    bridge: str
    device: str = ""
    model: str = "virtio"
    mtu: int = 0
    boot_order: int = 0


@dataclass(frozen=True, slots=True)
class CpuSpec:
    """CPU model and topology; an empty model is the hypervisor's own default. `sockets` 0: no topology."""

    model: str = ""
    sockets: int = 0
    cores: int = 0
    threads: int = 0
    features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CpuTune:
    """Weight and upper limit in percent of one core (0: none), and the host's CPUs that vCPUs may run on."""

    weight_percent: int = 0
    limit_percent: int = 0
    pins: tuple[str, ...] = ()
    """One set of host CPUs (`0-3,8`) for each vCPU, or nothing."""


@dataclass(frozen=True, slots=True)
class NumaCell:
    """A NUMA node of the guest: its vCPUs (`0-3`), its memory in MiB, and the host's node it lies on (-1: any)."""

    cpus: str
    memory_mib: int
    host_node: int = -1


@dataclass(frozen=True, slots=True)
class MemorySpec:
    """Memory in MiB. `max_mib` above `mib` leaves room to plug memory in (`has_slots`), or to let a balloon shrink."""

    mib: int
    max_mib: int = 0
    has_slots: bool = False
    hugepage_kib: int = 0
    cells: tuple[NumaCell, ...] = ()


@dataclass(frozen=True, slots=True)
class BootSpec:
    """How the guest starts. `type`: `hvm`, `linux` (paravirtual) or `exe` (container)."""

    type: str = "hvm"
    firmware: str = ""
    is_secure: bool = False
    nvram: Path | None = None
    kernel: Path | None = None
    initrd: Path | None = None
    arguments: str = ""
    init: str = ""


@dataclass(frozen=True, slots=True)
class GraphicsSpec:
    """A screen. Without `address` nothing listens at all: viewers are handed in by the hypervisor's own connection."""

    type: str
    keymap: str = ""
    video: str = ""
    inputs: tuple[str, ...] = ()
    address: str = ""


@dataclass(frozen=True, slots=True)
class Devices:
    """The devices that a guest has besides disks and interfaces. None of them where all is left out."""

    has_agent_channel: bool = False
    balloon: str = ""
    """Model of the memory balloon, `none` for explicitly none, empty for the hypervisor's default."""
    has_usb: bool = True
    """False leaves the USB controller out that QEMU adds by itself."""
    scsi_controller: str = ""
    has_rng: bool = False
    has_tpm: bool = False
    console: str = ""
    """`serial`, `console`, or empty for none."""
    has_no_video: bool = False
    """Leaves out the screen that QEMU adds by itself."""
    pci_addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DomainSpec:
    """Everything that the XML of a domain says."""

    mark: Mark
    name: str
    type: str
    memory: MemorySpec
    vcpus: int
    max_vcpus: int = 0
    tune: CpuTune = field(default_factory=CpuTune)
    architecture: str = ""
    machine: str = ""
    emulator: str = ""
    boot: BootSpec = field(default_factory=BootSpec)
    features: tuple[str, ...] = ()
    cpu: CpuSpec = field(default_factory=CpuSpec)
    disks: tuple[DiskSpec, ...] = ()
    nics: tuple[NicSpec, ...] = ()
    console_log: Path | None = None
    graphics: GraphicsSpec | None = None
    devices: Devices = field(default_factory=Devices)
    raw: str = ""
    """XML elements of the user's own, merged into the domain."""
    is_validated: bool = False
    """The hypervisor's library checks the whole domain against its schema before it takes it."""

    @property
    def uid(self) -> str:
        """The VM's uid, which is the domain's UUID."""
        return self.mark.uid
