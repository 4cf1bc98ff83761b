"""The guest's own scripts: they parse, and the parts that can be tried outside a guest do what they say."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from services.devstack.guestimage.initramfs import script
from tests.support.real import programs, real_part

SCRIPTS = ("init", "rc.boot", "rc.start", "rc.off", "lib.sh", "dhcp", "profile")


def shell(text: str, folder: Path) -> str:
    """Runs a piece of shell with the guest's functions, in BusyBox's shell."""
    real_part("busybox", programs("busybox"))
    (folder / "lib.sh").write_bytes(script("lib.sh"))
    words = ["busybox", "sh", "-c", f". ./lib.sh; {text}"]
    return subprocess.run(words, cwd=folder, capture_output=True, check=True, text=True).stdout


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_parses(name: str) -> None:
    real_part("busybox", programs("busybox"))
    subprocess.run(["busybox", "sh", "-n"], input=script(name), check=True)


def test_the_volume_label_of_a_disk_is_read(folder: Path) -> None:
    image = bytearray(17 * 2048)
    image[32768 + 40 : 32768 + 72] = b"CONTEXT".ljust(32)
    (folder / "disk").write_bytes(image)
    (folder / "empty").write_bytes(b"")
    assert shell("volume_label disk", folder) == "CONTEXT"
    assert shell("volume_label empty", folder) == ""


def test_a_value_of_an_interface_is_printed_as_it_is(folder: Path) -> None:
    assert shell("""ETH0_DNS='a $(id) "b"'; value ETH0 DNS; value ETH0 NONE""", folder) == 'a $(id) "b"'
