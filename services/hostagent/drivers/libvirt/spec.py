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
    """A disk or CD-ROM in a file."""

    path: Path
    format: str
    target: str
    bus: str
    is_cdrom: bool = False
    is_read_only: bool = False
    cache: str = ""
    serial: str = ""
    boot_order: int = 0
    limits: IoLimits = field(default_factory=IoLimits)


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
    """CPU model and topology; an empty model is the hypervisor's own default."""

    model: str = ""
    sockets: int = 0
    cores: int = 0
    threads: int = 0
    features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GraphicsSpec:
    """A screen, listening on this node's loopback only."""

    type: str
    keymap: str = ""
    video: str = ""
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DomainSpec:
    """Everything that the XML of a domain says. Sizes are in MiB; `cpu_percent` is in percent of one core."""

    mark: Mark
    name: str
    type: str
    memory_mib: int
    vcpus: int
    cpu_percent: int = 0
    architecture: str = ""
    machine: str = ""
    emulator: str = ""
    firmware: str = ""
    cpu: CpuSpec = field(default_factory=CpuSpec)
    disks: tuple[DiskSpec, ...] = ()
    nics: tuple[NicSpec, ...] = ()
    console_log: Path | None = None
    graphics: GraphicsSpec | None = None
    has_agent_channel: bool = False
    has_balloon: bool = True
    has_usb: bool = False
    scsi_controller: str = ""

    @property
    def uid(self) -> str:
        """The VM's uid, which is the domain's UUID."""
        return self.mark.uid
