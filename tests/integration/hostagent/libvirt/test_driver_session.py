"""The libvirt driver without any rights, on the user's own hypervisor: real guests, but no network of moln's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.hostagent.drivers.libvirt.driver import NO_BRIDGES
from tests.support.eventually import eventually_sync
from tests.support.hypervisor import ROOT
from tests.support.real import needs_root, programs, real_part

pytestmark = pytest.mark.timeout(300)
NOBODY = 65534
AS_NOBODY = ("setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "--")


@pytest.fixture
def home(folder: Path) -> Iterator[Path]:
    """A home of nobody's; the hypervisor that was started for it has ended afterwards."""
    folder.chmod(0o755)
    path = folder / "home"
    for name in ("run", "cache", "config", "node"):
        (path / name).mkdir(parents=True)
    for entry in (path, *path.iterdir()):
        os.chown(entry, NOBODY, NOBODY)
    yield path
    for file in path.rglob("*.pid"):
        stop(int(file.read_text()))


def test_a_guest_boots_for_a_user_without_rights_who_is_told_what_is_lost(home: Path, image: Path) -> None:
    real_part("libvirtd", programs("libvirtd", "qemu-system-x86_64", "setpriv"))
    real_part("root", needs_root)
    if subprocess.run([*AS_NOBODY, sys.executable, "-c", ""], capture_output=True, cwd=ROOT, check=False).returncode:
        pytest.skip("this checkout is closed to other users")
    for entry in (image.parent, *image.parent.iterdir()):
        os.chown(entry, NOBODY, NOBODY)
    environment = {
        "HOME": str(home), "XDG_RUNTIME_DIR": str(home / "run"), "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_CONFIG_HOME": str(home / "config"), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    done = subprocess.run(
        [*AS_NOBODY, sys.executable, "-m", "tests.support.session_guest", home / "node", image],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert "hostname=web-1 eth0=10.0.2.15/24 ready" in said["log"], said
    assert NO_BRIDGES in said["warnings"]
    assert list((home / "node" / "vms").glob("[!.]*")) == []


def stop(pid: int) -> None:
    """Ends the process and waits until it has."""
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return
    eventually_sync(lambda: not Path(f"/proc/{pid}").exists(), what=f"process {pid} has ended")
