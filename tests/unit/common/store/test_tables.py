"""The tables of a cache, and the order of ids."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moln.operations.v1.records_pb2 import NameRecord
from services.common.store import Entry, KeyRow, KeyTable
from services.common.store.tables import KindTable, Tables

SPEC = KeyRow("thing", "spec", NameRecord, "test", 10, "test", "")
NOTES = KeyRow("thing", "note/*", NameRecord, "test", 10, "test", "")
STEPS = st.lists(st.tuples(st.booleans(), st.integers(0, 20), st.sampled_from(["spec", "note/1"])))


def entry(id: int, part: str) -> Entry:
    """An entry without a value."""
    return Entry(SPEC, f"{id:010d}", part, None, b"", 1, 1)


@given(STEPS)
def test_ids_stay_in_order_whatever_comes_and_goes(steps: list[tuple[bool, int, str]]) -> None:
    table, model = KindTable([SPEC, NOTES]), set[tuple[str, str]]()
    for is_put, id, part in steps:
        name = f"{id:010d}"
        old = table.put(entry(id, part)) if is_put else table.remove(name, part)
        assert (old is not None) == ((name, part) in model)
        (model.add if is_put else model.discard)((name, part))
        assert table.order == sorted({name for name, _ in model})
        assert {(name, part) for name, parts in table.objects.items() for part in parts} == model


def test_unwanted_parts_have_no_row() -> None:
    tables = Tables(KeyTable([SPEC, NOTES]), {"thing": frozenset({"note"})})
    table = tables.kinds["thing"]
    assert (table.row("spec"), table.row("note/7"), table.row("note"), table.row("")) == (None, NOTES, None, None)


def test_wanting_what_was_never_declared_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="no kind other"):
        Tables(KeyTable([SPEC]), {"other": None})
    with pytest.raises(ValueError, match="not all of the parts"):
        Tables(KeyTable([SPEC]), {"thing": frozenset({"spec", "x"})})
