"""The demo guest is built from the distribution's packages without root, and boots by itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from services.devstack.guestimage import GuestImageError, build_guest_image
from services.devstack.guestimage.packages import default_cache
from tests.support.eventually import eventually_sync
from tests.support.processes import Processes
from tests.support.real import programs, real_part

pytestmark = pytest.mark.timeout(300)
NEEDED = ("apt-get", "dpkg-deb", "mkfs.vfat", "mcopy", "syslinux", "mke2fs", "qemu-img", "busybox")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    real_part("tools of the guest image", programs(*NEEDED))
    try:
        return build_guest_image(tmp_path_factory.mktemp("image") / "guest.qcow2")
    except GuestImageError as err:
        reason = str(err)
        real_part("demo guest", lambda: reason)
        raise


def test_the_image_is_one_small_qcow2_and_a_second_build_is_the_same(image: Path, folder: Path) -> None:
    words: list[str | Path] = ["qemu-img", "info", "--output=json", "-f", "qcow2", image]
    facts = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)
    assert "backing-filename" not in facts
    assert facts["virtual-size"] <= 96 * 2**20
    assert image.stat().st_size < 48 * 2**20
    said: list[str] = []
    assert build_guest_image(folder / "again.qcow2", say=said.append).read_bytes() == image.read_bytes()
    assert said == [], "it came from the cache"
    assert [file.name for file in folder.iterdir()] == ["again.qcow2"]


def test_the_guest_boots_without_a_context_and_says_so(image: Path, running: Processes) -> None:
    real_part("qemu", programs("qemu-system-x86_64"))
    running.start(
        ["qemu-system-x86_64", "-accel", "tcg", "-m", "96", "-display", "none", "-vga", "none",
         "-monitor", "none", "-serial", "stdio", "-no-reboot", "-nic", "none",
         "-drive", f"file={image},if=virtio,format=qcow2,snapshot=on"],
        name="guest",
    )  # fmt: skip
    ready = "moln-guest: hostname=moln-guest no-context ready"
    eventually_sync(lambda: ready in running.output("guest"), what="the guest is ready", within=120)


def test_the_command_prints_the_path_and_without_a_place_to_write_one_clear_line(folder: Path, image: Path) -> None:
    command = [sys.executable, "-m", "services.devstack.guestimage", "--output"]
    done = subprocess.run([*command, folder / "made.qcow2"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, str(folder / "made.qcow2"))
    (folder / "file").touch()
    done = subprocess.run([*command, folder / "file" / "x.qcow2"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("the guest image cannot be built: ")
    assert len(done.stderr.splitlines()) == 1


def test_packages_are_kept_so_that_the_next_build_needs_no_network(image: Path) -> None:
    kept = {path.name.split("_")[0] for path in (default_cache() / "packages").iterdir()}
    assert any(name.startswith("linux-image-") for name in kept)
