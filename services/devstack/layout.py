"""Where a stack keeps what: one folder of mode 0700. Knows paths, and what is written down between runs."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from services.common.stacks import DEFAULT_FOLDER
from services.devstack.errors import REFUSED, USAGE, StackError

FOLDER_BYTES = 90
"""A UNIX socket's path has room for 107 bytes, its name in the folder included."""
MARK_FILE = "moln-stack"
_MARK = "This folder holds a moln development stack. `moln dev down --purge` erases it.\n"


@dataclass(frozen=True)
class Folder:
    """The state folder of a stack."""

    path: Path

    @property
    def lock(self) -> Path:
        """Held by the supervisor while the stack runs."""
        return self.path / "lock"

    @property
    def logs(self) -> Path:
        """One file for each process."""
        return self.path / "log"

    @property
    def run(self) -> Path:
        """What is of this run only."""
        return self.path / "run"

    @property
    def config(self) -> Path:
        """The settings of each service, written anew at every start."""
        return self.path / "config"

    @property
    def token_file(self) -> Path:
        """The administrator's token."""
        return self.state_of("api") / "admin.token"

    @property
    def secret_file(self) -> Path:
        """What services of this cloud know each other by."""
        return self.path / "service.secret"

    @property
    def datastore(self) -> Path:
        """The default datastore."""
        return self.path / "datastore"

    @property
    def processes(self) -> Path:
        """What the supervisor knows of its children, for `moln dev status`."""
        return self.run / "processes.json"

    @property
    def etcd(self) -> Path:
        """The folder of etcd as it is named in addresses: the path of a UNIX socket must be short."""
        inside = self.path / "etcd"
        if len(os.fsencode(inside)) <= FOLDER_BYTES:
            return inside
        digest = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"moln-{os.getuid()}-{digest}" / "etcd"

    def state_of(self, service: str) -> Path:
        """The folder of one service."""
        return self.path / service

    def log_of(self, name: str) -> Path:
        """The log of one process."""
        return self.logs / f"{name}.log"

    def ready_of(self, name: str) -> Path:
        """Appears when the process is ready."""
        return self.run / f"{name}.ready"

    def make(self) -> None:
        """Makes the folder, or takes the one that is there. Raises StackError where it is not ours to use."""
        if self.path.exists() and not self.path.is_dir():
            raise StackError(f"{self.path} is not a folder: choose another with --state", USAGE)
        if self.path.is_dir() and not (self.path / MARK_FILE).exists() and any(self.path.iterdir()):
            raise StackError(f"{self.path} holds something else than a stack: choose another with --state", REFUSED)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.path.chmod(0o700)
            (self.path / MARK_FILE).write_text(_MARK)
            for folder in (self.logs, self.run, self.config, self.datastore, self.path / "etcd"):
                folder.mkdir(exist_ok=True)
            self._make_short_name()
        except OSError as err:
            raise StackError(f"the state folder {self.path} cannot be used: {err.strerror or err}") from err

    def _make_short_name(self) -> None:
        """A link with a short path, in a folder that nobody else can have made before us."""
        link = self.etcd
        if link.parent == self.path:
            return
        link.parent.mkdir(exist_ok=True, mode=0o700)
        found = link.parent.stat(follow_symlinks=False)
        if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
            raise StackError(f"{link.parent} belongs to somebody else: remove it, or use a shorter --state")
        link.parent.chmod(0o700)
        link.unlink(missing_ok=True)
        link.symlink_to(self.path / "etcd")

    def is_stack(self) -> bool:
        """Whether a stack was ever made here."""
        return (self.path / MARK_FILE).exists()


def folder_of(text: str | None) -> Folder:
    """The state folder that was named, or the default one."""
    return Folder(Path(text or DEFAULT_FOLDER).expanduser().resolve())


@dataclass(frozen=True)
class Memory:
    """What a stack keeps between runs, so that the next finds the cloud as it was."""

    name: str
    sim_hosts: int = 0
    ports: dict[str, int] | None = None
    network: str = ""
    """Default network, in CIDR notation."""
    has_real_host: bool = True
    """It has a node that runs real guests, or the nearest thing to that."""
    keeps_guests: bool = False
    """The last run left its guests running on purpose."""


def load_memory(folder: Folder) -> Memory | None:
    """What the last run wrote down; None for a new stack. Raises StackError where it cannot be read."""
    path = folder.path / "memory.json"
    try:
        document = json.loads(path.read_text())
        return Memory(**{field.name: document[field.name] for field in fields(Memory) if field.name in document})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as err:
        raise StackError(f"{path} cannot be read ({err}): restore it, or start anew with another --state") from err


def save_memory(folder: Folder, memory: Memory) -> None:
    """Writes it down in one step."""
    fresh = folder.path / "memory.json.new"
    fresh.write_text(json.dumps(asdict(memory), indent=2) + "\n")
    fresh.replace(folder.path / "memory.json")
