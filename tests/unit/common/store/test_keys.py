"""Keys, and the table that declares them."""

from __future__ import annotations

import pytest

from moln.operations.v1.records_pb2 import NameRecord
from services.common.store import KeyRow, KeyTable, key, prefix, split_key
from services.common.store.keys import range_end


def row(kind: str, part: str, size: int = 10) -> KeyRow:
    """A row of a table."""
    return KeyRow(kind, part, NameRecord, "test", size, "test", "")


def test_numbers_are_padded_so_that_keys_sort_as_numbers_do() -> None:
    assert key("vm", 7, "spec") == "/moln/vm/0000000007/spec"
    assert key("vm", 7) == "/moln/vm/0000000007"
    assert key("leader", "scheduler") == "/moln/leader/scheduler"
    assert sorted(key("vm", n) for n in (100, 9, 20)) == [key("vm", n) for n in (9, 20, 100)]


def test_a_key_is_split_into_kind_id_and_part() -> None:
    assert split_key("/moln/vm/1/status/2") == ("vm", "1", "status/2")
    assert split_key("/moln/leader/x") == ("leader", "x", "")


@pytest.mark.parametrize("name", ["", "/moln/vm", "moln/vm/1", "/other/vm/1", "/moln//1", "/moln/vm/"])
def test_what_is_no_key_of_ours_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no key of the form"):
        split_key(name)


def test_a_prefix_of_an_object_takes_in_its_parts_only() -> None:
    assert prefix("vm") == "/moln/vm/"
    assert prefix("vm", 1) == "/moln/vm/0000000001/"


def test_a_range_ends_after_all_that_begin_with_its_start() -> None:
    assert range_end(b"/a/") == b"/a0"
    assert range_end(b"a\xff") == b"b"
    assert range_end(b"\xff") == b"\0"


def test_a_row_is_found_by_kind_and_part() -> None:
    table = KeyTable([row("vm", "spec"), row("vm", "status/*"), row("name", "*"), row("leader", "")])
    found = [table.row(*split_key(k)[::2]) for k in ("/moln/vm/1/spec", "/moln/vm/1/status/2", "/moln/name/vm/1/x")]
    assert [one.part if one else None for one in found] == ["spec", "status/*", "*"]
    assert table.row("vm", "stat") is None
    assert table.row("name", "") is None
    assert table.row_of("/moln/leader/x") is not None
    assert table.rows[1].pattern == "/moln/vm/<id>/status/*"
    with pytest.raises(ValueError, match="no row for /moln/process/"):
        table.required("process")
