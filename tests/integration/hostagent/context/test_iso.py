"""The context disk, read back by two that did not write it: xorriso's reader, and cloud-init's OpenNebula source."""

from __future__ import annotations

import base64
import functools
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from services.devstack.guestimage import GuestImageError
from services.devstack.guestimage.packages import candidates, default_cache, unpacked
from services.hostagent.context import ContextError, build_iso, variables_of
from tests.support.hypervisor import add_nic, order
from tests.support.real import programs, real_part

NASTY = 'it\'s $(touch /tmp/pwned) `id` "quoted" \\ back\nsecond line\n'
# What the data source imports; where a distribution divides them otherwise, a missing one shows as an import error.
PACKAGES = (
    "cloud-init", "python3-configobj", "python3-six", "python3-yaml", "python3-requests", "python3-urllib3",
    "python3-chardet", "python3-charset-normalizer", "python3-idna", "python3-certifi", "python3-oauthlib",
    "python3-netifaces",
)  # fmt: skip
READER = """
import json, sys
from cloudinit.sources import DataSourceOpenNebula as source
mac = sys.argv[2]
source.get_physical_nics_by_mac = lambda distro: {mac: "eth0"}
found = source.read_context_disk_dir(sys.argv[1], None)
if isinstance(found["userdata"], bytes):
    found["userdata"] = found["userdata"].decode()
print(json.dumps(found))
"""
SYSTEM_PYTHON = "/usr/bin/python3"


@pytest.fixture(autouse=True)
def xorriso() -> None:
    real_part("xorriso", programs("xorriso"))


def extract(iso: Path, target: Path) -> Path:
    words: list[str | Path] = ["xorriso", "-osirrox", "on", "-indev", iso, "-extract", "/", target]
    subprocess.run(words, check=True, capture_output=True)
    return target


def sourced(content: Path, name: str) -> str:
    """The variable as bash has it after sourcing, the way that guests do it."""
    words: list[str | Path] = ["bash", "-ec", f'. "$0/context.sh"; printf %s "${name}"', content]
    return subprocess.run(words, capture_output=True, check=True).stdout.decode()


async def test_all_files_come_back_byte_for_byte_under_the_label_that_guests_look_for(folder: Path) -> None:
    iso = folder / "context.iso"
    files = {"init.sh": b"#!/bin/sh\n", "En fil – åäö.bin": bytes(range(256)), "x" * 100: b""}
    await build_iso(iso, {"A": NASTY}, files)
    content = extract(iso, folder / "content")
    assert {file.name: file.read_bytes() for file in content.iterdir() if file.name != "context.sh"} == files
    sector = iso.read_bytes()[16 * 2048 : 17 * 2048]
    assert sector[40:72].decode().rstrip() == "CONTEXT"
    assert iso.stat().st_mode & 0o777 == 0o600
    assert sourced(content, "A") == NASTY


async def test_writing_again_replaces_the_disk_and_leaves_nothing_beside_it(folder: Path) -> None:
    iso = folder / "context.iso"
    await build_iso(iso, {"A": "1"}, {})
    await build_iso(iso, {"A": "2"}, {})
    assert "A='2'" in (extract(iso, folder / "content") / "context.sh").read_text()
    assert {file.name for file in folder.iterdir()} == {"context.iso", "content"}


async def test_what_cannot_be_written_leaves_the_old_disk(folder: Path) -> None:
    iso = folder / "context.iso"
    await build_iso(iso, {"A": "1"}, {})
    before = iso.read_bytes()
    with pytest.raises(ContextError):
        await build_iso(iso, {"A": "2"}, {"a/b": b""})
    assert iso.read_bytes() == before


async def test_cloud_init_reads_host_name_network_keys_and_user_data(folder: Path) -> None:
    real_part("cloud-init's OpenNebula data source", cloud_init_problem)
    vm = order(None, vm_id=5, hostname="web-5")
    add_nic(vm, "10.98.0.5", bridge="moln1")
    context = vm.spec.template.context
    context.ssh_keys.extend(["ssh-ed25519 AAAA one", "ssh-ed25519 BBBB two"])
    context.user_data = b"#cloud-config\nruncmd: [id]\n"
    context.variables["NASTY"] = NASTY
    await build_iso(folder / "context.iso", variables_of(vm), {})

    found = read_by_cloud_init(extract(folder / "context.iso", folder / "content"), vm.addresses.nics[0].mac)

    assert found["metadata"]["local-hostname"] == "web-5"
    assert found["metadata"]["public-keys"] == ["ssh-ed25519 AAAA one", "ssh-ed25519 BBBB two"]
    assert found["metadata"]["NASTY"] == NASTY
    assert found["userdata"] == "#cloud-config\nruncmd: [id]\n"
    interface = found["network-interfaces"]["ethernets"]["eth0"]
    assert interface["addresses"] == ["10.98.0.5/24"]
    assert interface["gateway4"] == "10.98.0.1"
    assert interface["nameservers"]["addresses"] == ["192.0.2.53"]
    assert base64.b64decode(variables_of(vm)["USER_DATA"]) == context.user_data


def read_by_cloud_init(content: Path, mac: str) -> dict[str, Any]:
    path = ":".join(f"{root}/usr/lib/python3/dist-packages" for root in _cloud_init())
    words: list[str | Path] = [SYSTEM_PYTHON, "-c", READER, content, mac]
    done = subprocess.run(words, env={"PYTHONPATH": path, "PATH": "/usr/bin:/bin"}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@functools.cache
def _cloud_init() -> list[Path]:
    return [unpacked(package, default_cache()) for package in candidates(PACKAGES)]


def cloud_init_problem() -> str | None:
    """Why cloud-init cannot be had from the distribution's packages, or None."""
    try:
        roots = _cloud_init()
    except GuestImageError as err:
        return str(err)
    if not any(root.name.startswith("cloud-init_") for root in roots):
        return "apt knows no package cloud-init: run `apt-get update`"
    return None if Path(SYSTEM_PYTHON).exists() else f"no {SYSTEM_PYTHON}"
