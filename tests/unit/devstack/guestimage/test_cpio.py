"""The archive that Linux unpacks at boot."""

from __future__ import annotations

import subprocess
from pathlib import Path

from services.devstack.guestimage import cpio
from tests.support.real import programs, real_part

ENTRIES = (
    cpio.folder("etc"),
    cpio.regular("etc/odd", b"123", 0o640),
    cpio.symlink("etc/link", "/etc/odd"),
    cpio.character_device("console", 5, 1),
)


def test_the_same_entries_give_the_same_bytes() -> None:
    assert cpio.archive(ENTRIES) == cpio.archive(ENTRIES)


def test_every_member_begins_at_a_multiple_of_four() -> None:
    data = cpio.archive(ENTRIES)
    assert len(data) % 4 == 0
    starts = [index for index in range(len(data)) if data.startswith(b"070701", index)]
    assert len(starts) == len(ENTRIES) + 1
    assert all(start % 4 == 0 for start in starts)


def test_another_program_reads_names_modes_and_owners(folder: Path) -> None:
    real_part("cpio", programs("cpio"))
    done = subprocess.run(
        ["cpio", "-tv", "--numeric-uid-gid", "--quiet"], input=cpio.archive(ENTRIES), capture_output=True, check=True
    )
    lines = done.stdout.decode().splitlines()
    assert [line.split()[0] for line in lines] == ["drwxr-xr-x", "-rw-r-----", "lrwxrwxrwx", "crw-------"]
    assert lines[2].endswith("etc/link -> /etc/odd")
    assert all(line.split()[2:4] == ["0", "0"] for line in lines)
