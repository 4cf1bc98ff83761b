"""`make demo`: three guests from nothing to running and back, in plain words, on a cloud of its own.

Leaves nothing behind, also when it fails or is interrupted: the cloud and all its files are erased in the end.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from services.devstack.cleanup import leftovers
from services.devstack.errors import StackError
from services.devstack.findings import mounts_under
from services.devstack.layout import Folder
from services.devstack.moln_commands import Moln
from services.devstack.networks import choose_network
from services.devstack.nodes import REAL_HOST
from services.devstack.reservations import Reservations

GUESTS = 3
_REMEDY = (
    "apt-get install qemu-system-x86 qemu-utils libvirt-daemon libvirt-daemon-driver-qemu, and, where you are not root "
    "and sudo asks for a password, run it as `sudo make demo`"
)
MEMORY = "128M"
BOOT_SECONDS = 90.0
STEPS = 9
_GIVEN = {
    "vms": "VMs", "cpu_percent_used": "% of a core", "memory_mib_used": "MiB of memory", "disk_mib_used": "MiB of disk",
}  # fmt: skip
_TEMPLATE = """\
# The shape of each guest; `moln explain template` says what else can stand here.
vcpus: 1
cpu_percent: 20
memory_mib: {memory}
disks:
  - image: demo-guest
nics:
  - network: demo-net
context:
  variables:
    NONCE: {nonce}
  start_script: |
    #!/bin/sh
    echo "demo: my nonce is $NONCE"
"""


class Demo:
    """One run."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._state = work / "cloud"
        self._moln = Moln(self._state, work / "cache", _say)
        self._nonce = secrets.token_hex(8)
        self._step = 0
        self._bridges: set[str] = set()

    def run(self) -> None:
        """All steps. Raises StackError with one clear line where one does not show what it should."""
        self._start()
        self._build_image()
        before = self._holdings()
        self._create()
        self._look_at_console()
        self._ping()
        self._power_cycle()
        self._terminate()
        self._compare(before)

    def clean_up(self) -> None:
        """Ends and erases the cloud. Raises StackError where something is left."""
        if not Folder(self._state).is_stack():
            return
        self._tell("Ending the cloud and erasing all its files.")
        self._moln.show("dev", "down", "--purge", "--yes")
        left = leftovers(Folder(self._state))
        if left:
            raise StackError(f"still running: {', '.join(f'{item.title} ({item.pid})' for item in left)}")
        bridges = [path.name for path in Path("/sys/class/net").iterdir() if path.name in self._bridges]
        if bridges:
            raise StackError(f"still there: the bridge {bridges[0]}")
        mounts = mounts_under(self._state)
        if mounts:
            raise StackError(f"still mounted: {mounts[0]}")
        _say("Nothing is left: no process, no bridge, no mount, no file.")

    def _start(self) -> None:
        self._tell("Starting a cloud of its own on this machine: etcd, four services, and one node for real guests.")
        self._moln.show("dev", "up", "--detach", "--name", "demo")
        host = self._moln.read("host", "show", REAL_HOST)
        if host["inventory"].get("hypervisor") not in ("qemu", "kvm"):
            raise StackError(f"this machine runs no real guests, so there is nothing to show: {_REMEDY}")
        self._moln.show("host", "list")

    def _build_image(self) -> None:
        self._tell("Building a small guest (a kernel of the distribution and BusyBox) and registering it as an image.")
        image = self._work / "guest.qcow2"
        command = [sys.executable, "-m", "services.devstack.guestimage", "--output", str(image)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise StackError(done.stderr.strip().splitlines()[-1] if done.stderr else "the guest image was not built")
        self._moln.show("image", "create", "demo-guest", "--path", str(image))
        image.unlink()
        _say("A network for the guests: a bridge on the node, addresses that are given out, each once.")
        self._moln.show("net", "create", "demo-net", "--cidr", self._free_network(), "--gateway-on-node")
        self._bridges = {network["spec"]["bridge"] for network in self._moln.read("net", "list")}

    def _free_network(self) -> str:
        default = self._moln.read("net", "show", "default")["spec"]["cidr"]
        with Reservations() as reserved:
            base = choose_network([default], reserved).partition("/")[0]
        return f"{base}/24"

    def _create(self) -> None:
        template = self._work / "demo.yaml"
        template.write_text(_TEMPLATE.format(memory=MEMORY, nonce=self._nonce))
        self._tell(f"Creating {GUESTS} VMs. Their context carries a number that only this run knows: {self._nonce}.")
        self._moln.show("vm", "create", "demo", "-f", str(template), "--count", str(GUESTS), "--wait")
        self._moln.show("vm", "list")

    def _look_at_console(self) -> None:
        self._tell("Reading from the first guest's own serial console what it found in its context.")
        vm = self._moln.read("vm", "show", "demo-1")
        address = vm["view"]["ipv4"]
        log = self._until_logged("demo-1", r"moln-guest: .* ready")
        wanted = {
            "its host name": "hostname=demo-1",
            "its address": f"={address}/",
            "the number of this run": self._nonce,
        }
        for what, text in wanted.items():
            if text not in log:
                raise StackError(f"the console of demo-1 does not show {what} ({text})")
        for line in re.findall(r"demo: my nonce.*|moln-guest: .* ready", log):
            _say(f"  {line.strip()}")
        _say(f"The guest knows {', '.join(wanted)}.")

    def _until_logged(self, vm: str, pattern: str) -> str:
        """Waits until the guest has written it to its console."""
        deadline = time.monotonic() + BOOT_SECONDS
        while time.monotonic() < deadline:
            log = self._moln.run("vm", "console", vm, "--log")
            if re.search(pattern, log):
                return log
            time.sleep(0.5)
        raise StackError(f"{vm} did not say that it is ready within {BOOT_SECONDS:g} s")

    def _ping(self) -> None:
        self._tell("Typing on the first guest's console: a ping to the second guest.")
        address = self._moln.read("vm", "show", "demo-2")["view"]["ipv4"]
        self._until_logged("demo-2", r"moln-guest: .* ready")
        with self._moln.console("demo-1") as console:
            console.type("")
            console.until(r"demo-1:.*# ", 20.0)
            console.type(f"ping -c 3 {address}")
            line = console.until(r"\d+ packets transmitted.*", 30.0).strip()
        _say(f"  {line}")
        if " 0% packet loss" not in line:
            raise StackError(f"demo-1 did not reach demo-2 at {address}: {line}")

    def _power_cycle(self) -> None:
        self._tell("Powering the third guest off and on again; its disk and address stay its own.")
        address = self._moln.read("vm", "show", "demo-3")["view"]["ipv4"]
        self._until_logged("demo-3", r"moln-guest: .* ready")
        self._moln.show("vm", "poweroff", "demo-3", "--wait")
        self._moln.show("vm", "resume", "demo-3", "--wait")
        if self._moln.read("vm", "show", "demo-3")["view"]["ipv4"] != address:
            raise StackError("demo-3 came back with another address")

    def _terminate(self) -> None:
        self._tell("Terminating all three.")
        names = [f"demo-{number}" for number in range(1, GUESTS + 1)]
        self._moln.show("vm", "terminate", *names, "--hard", "--yes", "--wait")

    def _compare(self, before: dict[str, Any]) -> None:
        self._tell("Showing that host, leases and disks are as before the VMs.")
        after = self._holdings()
        for what, found in after.items():
            _say(f"  {what}: {found or 'none'}")
            if found != before[what]:
                raise StackError(f"{what} differ: {before[what]} before, {found} after")

    def _holdings(self) -> dict[str, Any]:
        """What VMs would hold."""
        host = self._moln.read("host", "show", REAL_HOST)["view"]
        leases = self._moln.read("net", "leases", "demo-net")
        disks = sorted(str(path.relative_to(self._state)) for path in (self._state / "node").rglob("*.qcow2")
                       if "cache" not in path.parts)  # fmt: skip
        given = {word: host.get(name, 0) for name, word in _GIVEN.items()}
        return {
            "given out of the host": ", ".join(f"{number} {word}" for word, number in given.items()),
            "leases": [lease["ipv4"] for lease in leases],
            "disks on the node": disks,
        }

    def _tell(self, text: str) -> None:
        self._step += 1
        _say(f"\n[{self._step}/{STEPS}] {text}")


def _say(text: str) -> None:
    print(text, flush=True)


@contextlib.contextmanager
def _work_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="moln-demo-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """Exit 0 when everything was shown, 1 with one line otherwise, 130 after ^C; nothing is left in any case."""
    began = time.monotonic()
    code = 0
    with _work_folder() as work:
        demo = Demo(work)
        try:
            demo.run()
        except StackError as err:
            print(f"\nmake demo: {err}", file=sys.stderr, flush=True)
            code = 1
        except KeyboardInterrupt:
            print("\nmake demo: interrupted", file=sys.stderr, flush=True)
            code = 130
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            demo.clean_up()
        except StackError as err:
            print(f"\nmake demo: {err}", file=sys.stderr, flush=True)
            code = code or 1
    if code == 0:
        _say(f"\nThat was all of it, in {time.monotonic() - began:.0f} s. `make run` starts a cloud to play with.")
    return code


if __name__ == "__main__":
    sys.exit(main())
