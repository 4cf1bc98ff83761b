"""The journal of the simulated hypervisors: what is read back is what was written, up to a kill in the middle."""

from __future__ import annotations

from pathlib import Path

from services.hostagent.drivers.ports import End
from services.hostagent.drivers.sim import journal as journals
from services.hostagent.drivers.sim.journal import Journal, SimGuest, read_history, read_state


def a_guest(vm_id: int = 7, host_id: int = 1) -> SimGuest:
    return SimGuest(
        host_id, vm_id, f"uid-{vm_id}", epoch=2, attempt=3, generation=4, is_running=True, start_s=1000.25, starts=1
    )


def test_what_runs_is_read_back_whole(folder: Path) -> None:
    journal = Journal(folder / "sim" / "journal")
    journal.boots(1, "boot", 999)
    journal.runs(a_guest())
    journal.close()
    state = read_state(folder / "sim" / "journal")
    assert state.guests == {(1, 7): a_guest()} and state.boot_ids == {1: "boot"}


def test_a_stop_says_how_and_an_erase_leaves_nothing(folder: Path) -> None:
    journal = Journal(folder / "journal")
    guest, other = a_guest(), a_guest(8)
    journal.runs(guest)
    journal.runs(other)
    guest.end = End.BY_AGENT
    journal.stops(guest, 1001)
    journal.erases(other, 1002)
    journal.close()
    state = read_state(folder / "journal")
    assert list(state.guests) == [(1, 7)]
    assert not state.guests[1, 7].is_running and state.guests[1, 7].end is End.BY_AGENT


def test_a_boot_of_the_host_ends_what_ran_there(folder: Path) -> None:
    journal = Journal(folder / "journal")
    journal.runs(a_guest())
    journal.runs(a_guest(8, host_id=2))
    journal.boots(1, "new", 1001)
    journal.close()
    guests = read_state(folder / "journal").guests
    assert guests[1, 7].end is End.VANISHED and guests[2, 8].is_running


def test_a_line_that_a_kill_has_cut_short_is_passed_over(folder: Path) -> None:
    journal = Journal(folder / "journal")
    journal.runs(a_guest())
    journal.close()
    with (folder / "journal").open("a") as file:
        file.write("R\t1\t8\tuid-8\t2")
    assert list(read_state(folder / "journal").guests) == [(1, 7)]


def test_what_follows_a_line_that_was_cut_short_is_read(folder: Path) -> None:
    (folder / "journal").write_text("R\t1\t8\tuid-8\t2")
    journal = Journal(folder / "journal")
    journal.runs(a_guest())
    journal.close()
    assert list(read_state(folder / "journal").guests) == [(1, 7)]


def test_without_a_file_there_is_nothing(folder: Path) -> None:
    assert read_state(folder / "absent").guests == {} and list(read_history(folder / "absent")) == []


def test_a_long_journal_is_replaced_by_what_it_amounts_to(folder: Path, monkeypatch: object) -> None:
    journal = Journal(folder / "journal")
    for _ in range(100):
        journal.runs(a_guest())
    journal.flush()
    before = read_state(folder / "journal")
    before.guests[1, 7].starts = 1
    size = journals.COMPACT_AT_BYTES
    try:
        journals.COMPACT_AT_BYTES = 10
        journal.compact(before, 1001)
    finally:
        journals.COMPACT_AT_BYTES = size
    journal.runs(a_guest(8))
    journal.close()
    assert len(list(read_history(folder / "journal"))) == 2
    assert set(read_state(folder / "journal").guests) == {(1, 7), (1, 8)}
