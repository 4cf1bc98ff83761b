"""What the doctor sees, in folders that a test has made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.common import stacks
from services.common.stacks import StackRecord
from services.devstack import findings
from services.devstack.doctor import examine
from services.devstack.layout import Folder


@pytest.fixture(autouse=True)
def own_registry(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "xdg"))


def killed(folder: Path) -> StackRecord:
    Folder(folder / "cloud").make()
    record = StackRecord(
        "mine", str(folder / "cloud"), "127.0.0.1:1", "", 2**22 + 1, 7, "2026-11-23T12:00:00+00:00", True
    )
    stacks.save(record, os.environ)
    return record


async def test_a_killed_stack_is_said_once_and_repaired(folder: Path) -> None:
    killed(folder)
    said: list[str] = []
    assert await examine(Folder(folder / "cloud"), said.append, fixes=False) == 1
    assert len(said) == 1
    assert "the cloud mine" in said[0]
    assert "was killed" in said[0]
    assert await examine(Folder(folder / "cloud"), said.append, fixes=True) == 0
    assert await examine(Folder(folder / "cloud"), said.append, fixes=False) == 0
    assert said[-1] == "nothing is left over and nothing is wrong"


def test_entries_without_a_folder_are_named(folder: Path) -> None:
    record = killed(folder)
    assert list(findings.of_registry()) == []
    os.rename(record.state_dir, folder / "moved")
    assert [str(folder / "cloud") in finding.text for finding in findings.of_registry()] == [True]


def bridge(net: Path, name: str, alias: str, *ports: str) -> None:
    (net / name / "bridge").mkdir(parents=True)
    (net / name / "ifalias").write_text(f"{alias}\n" if alias else "")
    for port in ports:
        (net / name / "brif" / port).mkdir(parents=True)


def test_only_bridges_with_the_mark_are_seen(folder: Path) -> None:
    bridge(folder, "br0", "")
    bridge(folder, "moln1", "moln:uid-1", "vnet0")
    bridge(folder, "moln2", "moln:uid-2")
    (folder / "eth0").mkdir()
    seen = findings.marked_bridges(folder)
    assert [(item.name, item.network_uid, item.has_ports) for item in seen] == [
        ("moln1", "uid-1", True), ("moln2", "uid-2", False)
    ]  # fmt: skip


def test_mounts_are_found_innermost_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        f"1 2 8:1 / {place} rw - ext4 d rw" for place in ("/", f"{folder}/a", f"{folder}/a/b", f"{folder}-other/c")
    ]
    table = folder / "mountinfo"
    table.write_text("\n".join(lines))
    monkeypatch.setattr(findings, "MOUNTS", table)
    assert findings.mounts_under(folder) == [f"{folder}/a/b", f"{folder}/a"]
