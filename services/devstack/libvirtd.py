"""A libvirtd of a stack's own, for machines where none runs: own folders, so that it never mixes with the system's.

`python -m services.devstack.libvirtd --state DIR` needs root, stays in the foreground and reaps what guests leave:
under it a guest's end is seen at once, while process 1 may take a second. Guests outlive it; the next one adopts them.
Must not define or stop guests.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import hashlib
import os
import shutil
import signal
import socket
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

from services.common.runtime.process import PARENT_PID, READY_FILE, announce_ready, announce_stopping, follow_parent
from services.devstack.errors import StackError

SYSTEM_URI = "qemu:///system"
SYSTEM_SOCKETS = (Path("/run/libvirt/virtqemud-sock"), Path("/run/libvirt/libvirt-sock"))
RUN_ROOT = Path("/run")
READY_SECONDS = 60.0
STOP_SECONDS = 15.0

_PR_SET_CHILD_SUBREAPER = 36
_CLONE_NEWNS = 0x00020000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_ACCOUNTS = {
    "passwd": "libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin",
    "group": "libvirt-qemu:x:64055:",
}
# Guests run as root: the stack's folder is closed to everybody else.
_QEMU_CONF = """\
user = "root"
group = "root"
security_driver = "none"
stdio_handler = "file"
cgroup_controllers = []
namespaces = []
remember_owner = 0
swtpm_user = "root"
swtpm_group = "root"
"""
_LIBVIRTD_CONF = """\
unix_sock_dir = "{sockets}"
unix_sock_rw_perms = "0700"
auth_unix_ro = "none"
auth_unix_rw = "none"
host_uuid = "{host_uuid}"
log_outputs = "2:stderr"
"""


@dataclass(frozen=True)
class LibvirtdFolder:
    """Where one private libvirtd keeps what. `run` is gone after a reboot, as it must be, and its path is short."""

    state: Path

    @property
    def run(self) -> Path:
        """Sockets, and what libvirtd knows of running guests."""
        digest = hashlib.sha256(os.fsencode(self.state.resolve())).hexdigest()[:12]
        return RUN_ROOT / f"moln-libvirt-{digest}"

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.run / "sock" / "libvirt-sock"

    @property
    def pid_file(self) -> Path:
        """Of libvirtd itself."""
        return self.run / "libvirtd.pid"

    @property
    def uri(self) -> str:
        """What clients connect to."""
        return f"qemu+unix:///system?socket={self.socket}"

    def guest_pids(self) -> list[int]:
        """Processes of guests that this libvirtd started and that still live."""
        files = (self.run / "lib" / "qemu").glob("*.pid")
        return [pid for file in files if (pid := _pid_in(file)) and _is_qemu(pid)]

    def erase_run(self) -> bool:
        """Removes what is of this run; False where guests still live, which the next libvirtd needs it for."""
        if self.guest_pids() or accepts(self.socket):
            return False
        shutil.rmtree(self.run, ignore_errors=True)
        return True


def running_system_uri() -> str | None:
    """The URI of the machine's own libvirt, or None where none runs."""
    return SYSTEM_URI if any(accepts(path) for path in SYSTEM_SOCKETS) else None


def is_installed() -> bool:
    """Whether there is a libvirtd to start."""
    return _program() is not None


def accepts(path: Path) -> bool:
    """Whether somebody listens on a UNIX socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


class Supervisor:
    """Parent of libvirtd, and of everything that libvirtd's own children leave behind."""

    def __init__(self, folder: LibvirtdFolder) -> None:
        self._folder = folder
        self._pid = 0
        self._ended = asyncio.Event()
        self._over = asyncio.Event()
        """libvirtd has ended, or is to end."""
        self._is_asked = False

    async def run(self) -> int:
        """Until libvirtd ends or a signal asks to stop; the exit code."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ask)
        follow_parent(os.environ, self._ask)
        self._pid = _spawn(self._folder)
        try:
            await self._until_ready()
            announce_ready(os.environ, {"libvirt": self._folder.uri})
            await self._over.wait()
        finally:
            announce_stopping(os.environ)
            await self._stop()
        return 0 if self._is_asked else 1

    async def _until_ready(self) -> None:
        async with asyncio.timeout(READY_SECONDS):
            while not await asyncio.to_thread(accepts, self._folder.socket):
                if self._ended.is_set():
                    raise StackError("libvirtd ended before it was ready; its log says why")
                if self._is_asked:
                    return
                await asyncio.sleep(0.05)

    async def _stop(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._ended.is_set():
                break
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await self._ended.wait()
        self._folder.erase_run()

    def _ask(self) -> None:
        self._is_asked = True
        self._over.set()

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self._pid:
                    self._ended.set()
                    self._over.set()


def prepare(folder: LibvirtdFolder) -> None:
    """Becomes the reaper, leaves the system's mount namespace, and puts the stack's folders where libvirt looks."""
    _call("prctl", _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    _call("unshare", _CLONE_NEWNS)
    _call("mount", b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
    for source, target in _places(folder).items():
        source.mkdir(parents=True, exist_ok=True, mode=0o711)
        target.mkdir(parents=True, exist_ok=True)
        _bind(source, target)
    _write_configuration(folder)
    for name, line in _ACCOUNTS.items():
        _add_account(folder.state / name, Path("/etc") / name, line)


def _places(folder: LibvirtdFolder) -> dict[Path, Path]:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "moln" / "libvirt"
    return {
        folder.state / "etc": Path("/etc/libvirt"),
        folder.state / "lib": Path("/var/lib/libvirt"),
        folder.state / "log": Path("/var/log/libvirt"),
        folder.run / "lib": Path("/run/libvirt"),
        cache: Path("/var/cache/libvirt"),  # what QEMU can do takes 8 s to find out, and is the same for all stacks
    }


def _write_configuration(folder: LibvirtdFolder) -> None:
    folder.socket.parent.mkdir(mode=0o700, exist_ok=True)
    host_uuid = uuid.uuid5(uuid.NAMESPACE_URL, f"{socket.gethostname()}{folder.state.resolve()}")
    (folder.state / "etc" / "qemu.conf").write_text(_QEMU_CONF)
    text = _LIBVIRTD_CONF.format(sockets=folder.socket.parent, host_uuid=host_uuid)
    (folder.state / "etc" / "libvirtd.conf").write_text(text)


def _add_account(copy: Path, system: Path, line: str) -> None:
    """libvirtd does not start without the account that its package makes: in its namespace there is one."""
    text = system.read_text()
    name = line.split(":", 1)[0]
    if any(entry.startswith(f"{name}:") for entry in text.splitlines()):
        return
    copy.write_text(f"{text.rstrip()}\n{line}\n")
    copy.chmod(0o644)
    _bind(copy, system)


def _spawn(folder: LibvirtdFolder) -> int:
    program = _program()
    if program is None:
        raise StackError("libvirtd is not installed: apt-get install libvirt-daemon libvirt-daemon-driver-qemu")
    configuration = folder.state / "etc" / "libvirtd.conf"
    words = [program, "--config", str(configuration), "--pid-file", str(folder.pid_file)]
    if guard := shutil.which("setpriv"):
        # A libvirtd that outlived this process would keep the next one from its socket.
        words = [guard, "--pdeathsig", "SIGTERM", "--", *words]
    environment = {name: value for name, value in os.environ.items() if name not in (READY_FILE, PARENT_PID)}
    return os.posix_spawn(words[0], words, environment, setsigmask=[])


def _program() -> str | None:
    return shutil.which("libvirtd", path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin")


def _bind(source: Path, target: Path) -> None:
    _call("mount", os.fsencode(source), os.fsencode(target), None, _MS_BIND, None)


def _call(name: str, *arguments: object) -> None:
    """A function of the C library, whose failure becomes one clear line."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise StackError(f"a private libvirtd cannot be set up ({name}: {reason}): start libvirtd yourself, or be root")


def _pid_in(file: Path) -> int:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return 0


def _is_qemu(pid: int) -> bool:
    try:
        return b"qemu" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0", 1)[0]
    except OSError:
        return False


def main() -> int:
    """Runs in the foreground; exit 0 after a signal, 1 with one line on standard error otherwise."""
    parser = argparse.ArgumentParser(
        prog="python -m services.devstack.libvirtd", description="A libvirtd of one stack."
    )
    parser.add_argument("--state", type=Path, required=True, help="folder of its own")
    arguments = parser.parse_args()
    folder = LibvirtdFolder(arguments.state.resolve())
    try:
        if os.geteuid() != 0:
            raise StackError("a private libvirtd needs root")
        if accepts(folder.socket):
            raise StackError(f"a libvirtd for {folder.state} runs already")
        prepare(folder)
        return asyncio.run(Supervisor(folder).run())
    except TimeoutError:
        print(f"libvirtd: not ready within {READY_SECONDS:g} s", file=sys.stderr)
    except (StackError, OSError) as err:
        print(f"libvirtd: {err}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
