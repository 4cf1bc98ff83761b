"""Which disks can have snapshots, and what is said where one cannot."""

from __future__ import annotations

import pytest

from moln.compute.v1.template_pb2 import DISK_DEVICE_CDROM, DiskTemplate
from services.api.core.disk_snapshots import MAX_SNAPSHOTS, check_snapshot_name, new_snapshot, that_snapshot
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason

DISK = DiskTemplate(disk_id=3, format="qcow2", size_mib=16)


def test_a_new_snapshot_and_one_that_is_there_are_told_to_the_node_by_disk_and_name() -> None:
    made = new_snapshot(DISK, ["a"], "b")
    assert (made.disk_id, made.snapshot) == (3, "b")
    found = that_snapshot(3, ["a", "b"], "a")
    assert (found.disk_id, found.snapshot) == (3, "a")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"format": "raw"}, "disk 3 is raw: only a qcow2 disk holds snapshots; save it as an image"),
        ({"is_read_only": True}, "disk 3 is read-only: it never changes"),
        ({"device": DISK_DEVICE_CDROM}, "disk 3 is a CD-ROM: it never changes"),
        ({"device": DISK_DEVICE_CDROM, "format": "raw"}, "disk 3 is a CD-ROM"),
    ],
)
def test_a_disk_that_can_have_none_is_refused_with_the_field_and_why(changed: dict[str, object], words: str) -> None:
    disk = DiskTemplate(disk_id=3, format="qcow2")
    disk.MergeFrom(DiskTemplate(**changed))  # type: ignore[arg-type]
    with pytest.raises(MolnError, match=words) as caught:
        new_snapshot(disk, [], "a")
    assert (caught.value.reason, caught.value.message.split(":")[0]) == (Reason.FIELD_INVALID, "disk_id")


def test_a_name_is_given_once_in_a_disk_and_there_is_a_most() -> None:
    with pytest.raises(MolnError, match="disk 3 has a snapshot a already; delete it, or choose another name") as caught:
        new_snapshot(DISK, ["a"], "a")
    assert caught.value.reason is Reason.NAME_TAKEN
    almost = [str(number) for number in range(MAX_SNAPSHOTS - 1)]
    assert new_snapshot(DISK, almost, "a").snapshot == "a"
    with pytest.raises(MolnError, match="at most 32 snapshots; delete one first"):
        new_snapshot(DISK, [*almost, "last"], "a")


@pytest.mark.parametrize(("there", "words"), [([], "it has none"), (["a", "b"], "it has a, b")])
def test_one_that_is_not_there_is_refused_with_those_that_are(there: list[str], words: str) -> None:
    with pytest.raises(MolnError, match=f"disk 3 has no snapshot 'c'; {words}") as caught:
        that_snapshot(3, there, "c")
    assert caught.value.reason is Reason.SNAPSHOT_NOT_FOUND


@pytest.mark.parametrize("name", ["", "a/b", "a b", "x" * 65, "ä"])
def test_a_name_is_of_letters_that_every_disk_and_shell_bears(name: str) -> None:
    with pytest.raises(MolnError, match="is no name: 1 to 64 letters"):
        check_snapshot_name(name)
