"""Where a node keeps what: a folder for each VM by its uid, and the cache of images. Knows paths and what is in them.

A VM's folder is the proof that something of the VM is here: it is made before its first disk and erased last.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from google.protobuf.message import DecodeError

from moln.compute.v1.vm_pb2 import VmStatus

_GONE = ".gone"


@dataclass(frozen=True, slots=True)
class VmRecord:
    """Whose folder it is, and which bridges the VM uses."""

    vm_id: int
    uid: str
    epoch: int
    cloud_uid: str
    bridges: tuple[str, ...] = ()


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

    def disk(self, disk_id: int, format: str) -> Path:
        """A disk's file."""
        return self.path / f"disk-{disk_id}.{format}"

    def make(self, record: VmRecord) -> None:
        """Makes the folder, or takes the one that is there, and writes down whose it is."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.path.chmod(0o711)  # the hypervisor's own user must get to the disks
        _replace(self.record_file, json.dumps(asdict(record)).encode())

    def record(self) -> VmRecord | None:
        """Whose folder it is; None where it is half-made or half-erased."""
        try:
            document = json.loads(self.record_file.read_text())
            values = {field.name: document[field.name] for field in fields(VmRecord)}
            return VmRecord(**{**values, "bridges": tuple(values["bridges"])})
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def remember(self, status: VmStatus) -> None:
        """Keeps a status; no effect where the folder is not there."""
        if self.path.is_dir():
            _replace(self.status_file, status.SerializeToString())

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
    """All folders of one node."""

    state: Path

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

    def records(self) -> list[VmRecord]:
        """What is here, by the folders."""
        if not self.vms.is_dir():
            return []
        found = [VmFolder(path).record() for path in self.vms.iterdir() if path.suffix != _GONE]
        return [record for record in found if record is not None]

    def used_bytes(self) -> int:
        """Room that VMs and cached images take on disk."""
        files = [file for folder in (self.vms, self.cache) if folder.is_dir() for file in folder.rglob("*")]
        return sum(_blocks(file) for file in files)


def _safe(uid: str) -> str:
    if not uid or not all(char.isalnum() or char == "-" for char in uid):
        raise ValueError(f"{uid!r} is not a uid")
    return uid


def _blocks(file: Path) -> int:
    try:
        return file.stat(follow_symlinks=False).st_blocks * 512
    except OSError:
        return 0


def _replace(path: Path, content: bytes) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.write_bytes(content)
    fresh.replace(path)
