"""Where a node keeps what: a folder for each VM by its uid, and the cache of images. Knows paths and what is in them.

A VM's folder is the proof that something of the VM is here: it is made before its first disk and erased last.
"""

from __future__ import annotations

import json
import shutil
import uuid
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from google.protobuf.message import DecodeError

from moln.compute.v1.vm_pb2 import VmStatus

_GONE = ".gone"


@dataclass(frozen=True, slots=True)
class VmRecord:
    """Whose folder it is, and which bridges the VM uses. `host_id` 0: that of the node, whichever it is."""

    vm_id: int
    uid: str
    epoch: int
    cloud_uid: str
    bridges: tuple[str, ...] = ()
    host_id: int = 0

    def is_of(self, host_id: int) -> bool:
        """Whether the host owns the folder: on storage that hosts share it may be another's."""
        return self.host_id in (0, host_id)


@dataclass(frozen=True, slots=True)
class VmFolder:
    """The folder of one VM."""

    path: Path

    @property
    def context_iso(self) -> Path:
        """The context disk."""
        return self.path / "context.iso"

    @property
    def console_log(self) -> Path:
        """All that the guest wrote to its serial console."""
        return self.path / "console.log"

    @property
    def record_file(self) -> Path:
        """Whose folder it is."""
        return self.path / "vm.json"

    @property
    def status_file(self) -> Path:
        """What was last reported."""
        return self.path / "status.pb"

    @property
    def halt_file(self) -> Path:
        """There while the guest is off because the agent itself ended."""
        return self.path / "halted"

    @property
    def kernel(self) -> Path:
        """The kernel that the guest is booted with directly."""
        return self.path / "kernel"

    @property
    def initrd(self) -> Path:
        """The initial RAM disk of that kernel."""
        return self.path / "initrd"

    @property
    def nvram(self) -> Path:
        """The variables of the guest's UEFI firmware."""
        return self.path / "nvram.fd"

    @property
    def tpm_file(self) -> Path:
        """There where the hypervisor keeps the state of a TPM for the guest, which goes with the VM."""
        return self.path / "has-tpm"

    @property
    def memory(self) -> Path:
        """The memory of a guest that is saved: whole, and as old as the disks."""
        return self.path / "memory"

    @property
    def memory_part(self) -> Path:
        """The same while it is written."""
        return self.path / "memory.part"

    @property
    def memory_loaded(self) -> Path:
        """The same from when a guest has loaded it until it runs; never to be loaded again."""
        return self.path / "memory.loaded"

    def has_memory_files(self) -> bool:
        """Whether any of the three is there."""
        return any(path.exists() for path in (self.memory, self.memory_part, self.memory_loaded))

    def drop_memory(self) -> None:
        """Removes them; not there: no effect."""
        for path in (self.memory, self.memory_part, self.memory_loaded):
            path.unlink(missing_ok=True)

    @property
    def snapshots_file(self) -> Path:
        """The list of the VM's snapshots."""
        return self.path / "snapshots.json"

    @property
    def disk_snapshots_file(self) -> Path:
        """The list of the snapshots of its single disks."""
        return self.path / "disk-snapshots.json"

    def snapshot_xml(self, name: str) -> Path:
        """What the hypervisor must be told of a snapshot with memory."""
        return self.path / f"snapshot-{name}.xml"

    def disk(self, disk_id: int, format: str) -> Path:
        """A disk's file."""
        return self.path / f"disk-{disk_id}.{format}"

    def disk_files(self, disk_id: int) -> list[Path]:
        """The file of a disk, in whichever format it is; none where it is not made."""
        return sorted(path for path in self.path.glob(f"disk-{disk_id}.*") if path.suffix in (".qcow2", ".raw"))

    def make(self, record: VmRecord) -> None:
        """Makes the folder, or takes the one that is there, and writes down whose it is."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.path.chmod(0o711)  # the hypervisor's own user must get to the disks
        replace_file(self.record_file, json.dumps(asdict(record)).encode())

    def record(self) -> VmRecord | None:
        """Whose folder it is; None where it is half-made or half-erased."""
        return _read_record(self.record_file)

    def arriving_file(self, host_id: int) -> Path:
        """Beside the record: a host that shares the storage waits for the guest to arrive."""
        return self.path / f"arriving-{host_id}.json"

    def expect(self, record: VmRecord) -> None:
        """The folder stays its owner's; the host of the record waits for the guest to arrive."""
        replace_file(self.arriving_file(record.host_id), json.dumps(asdict(record)).encode())

    def arriving(self, host_id: int) -> VmRecord | None:
        """What `expect` has noted for the host."""
        return _read_record(self.arriving_file(host_id))

    def record_of(self, host_id: int) -> VmRecord | None:
        """What makes the VM one of the host's: the folder is its own, or it waits for the guest."""
        found = self.record()
        return found if found is not None and found.is_of(host_id) else self.arriving(host_id)

    def settle_arrival(self, host_id: int) -> None:
        """The guest has arrived and runs: the folder is the host's now. Idempotent."""
        expected = self.arriving(host_id)
        if expected is not None:
            self.make(expected)
            self.arriving_file(host_id).unlink(missing_ok=True)

    def migrating_file(self, host_id: int) -> Path:
        """There while the host hands the guest over; holds the move's id."""
        return self.path / f"migrating-{host_id}"

    @property
    def handover_file(self) -> Path:
        """Which files are handed to the target of a move, and to whom."""
        return self.path / "handover.json"

    @property
    def staged_file(self) -> Path:
        """There from when everything that the VM had in a datastore is here."""
        return self.path / "staged"

    def remember(self, status: VmStatus) -> None:
        """Keeps a status; no effect where the folder is not there."""
        if self.path.is_dir():
            replace_file(self.status_file, status.SerializeToString())

    def status(self) -> VmStatus | None:
        """What was kept last."""
        try:
            return VmStatus.FromString(self.status_file.read_bytes())
        except (OSError, DecodeError):
            return None

    def set_halted(self, is_halted: bool) -> None:
        """Leaves or removes the mark that the agent stopped the guest at its own end."""
        if is_halted and self.path.is_dir():
            self.halt_file.touch()
        else:
            self.halt_file.unlink(missing_ok=True)

    def erase(self) -> None:
        """Removes the folder with all disks. From its first moment the folder is no longer seen as a VM's."""
        gone = self.path.with_name(self.path.name + _GONE)
        if self.path.exists():
            shutil.rmtree(gone, ignore_errors=True)
            self.path.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
        if gone.exists():
            raise OSError(f"{gone} cannot be removed")


@dataclass(frozen=True, slots=True)
class NodeFolders:
    """All folders of one node. Hosts may share storage, and see each other's; `host_id` 0 takes all for its own."""

    state: Path
    host_id: int = 0

    @property
    def vms(self) -> Path:
        """One folder for each VM."""
        return self.state / "vms"

    @property
    def cache(self) -> Path:
        """Images fetched from elsewhere."""
        return self.state / "cache"

    def vm(self, uid: str) -> VmFolder:
        """The folder of a VM, which need not be there."""
        return VmFolder(self.vms / _safe(uid))

    def make(self) -> None:
        """Makes what is missing, and finishes erasing what was interrupted."""
        for folder in (self.vms, self.cache):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o711)
        for gone in self.vms.glob(f"*{_GONE}"):
            shutil.rmtree(gone, ignore_errors=True)

    def storage_id(self) -> str:
        """The file system's own id: the same for hosts that share the folder of VMs. Made where it is missing."""
        file = self.vms / ".storage-id"
        if not file.exists():
            fresh = self.vms / f".storage-id.{uuid.uuid4().hex}"
            fresh.write_text(f"{uuid.uuid4()}\n")
            try:
                file.hardlink_to(fresh)  # of two that find it missing one makes it
            except FileExistsError:
                pass
            finally:
                fresh.unlink()
        return file.read_text().strip()

    def records(self) -> list[VmRecord]:
        """What is here, by the folders."""
        if not self.vms.is_dir():
            return []
        paths = [path for path in self.vms.iterdir() if path.suffix != _GONE and not path.name.startswith(".")]
        found = [self._record(VmFolder(path)) for path in paths]
        return [record for record in found if record is not None]

    def _record(self, folder: VmFolder) -> VmRecord | None:
        return folder.record_of(self.host_id) if self.host_id else folder.record()

    def used_bytes(self) -> int:
        """Room that VMs and cached images take on disk."""
        files = [file for folder in (self.vms, self.cache) if folder.is_dir() for file in folder.rglob("*")]
        return sum(_blocks(file) for file in files)


def _read_record(file: Path) -> VmRecord | None:
    try:
        document = json.loads(file.read_text())
        known = {field.name for field in fields(VmRecord)}
        values = {name: value for name, value in document.items() if name in known}
        return VmRecord(**{**values, "bridges": tuple(values["bridges"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _safe(uid: str) -> str:
    if not uid or not all(char.isalnum() or char == "-" for char in uid):
        raise ValueError(f"{uid!r} is not a uid")
    return uid


def _blocks(file: Path) -> int:
    try:
        return file.stat(follow_symlinks=False).st_blocks * 512
    except OSError:
        return 0


def replace_file(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Writes a small file in one step."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=mode)
    fresh.write_bytes(content)
    fresh.replace(path)
