"""Who waits for what."""

from __future__ import annotations

from services.common.resources.waiting import Waiting


def three() -> Waiting:
    waiting = Waiting()
    for vm in ("a", "b", "c"):
        waiting.add(vm, "room")
    return waiting


def test_nobody_is_due_before_something_happens() -> None:
    assert three().due("room") == []
    assert three().due("nothing") == []


def test_the_first_to_come_are_the_first_to_be_due() -> None:
    waiting = three()
    waiting.signal("room")
    assert waiting.due("room", 2) == ["a", "b"]
    assert waiting.due("room", 2) == ["c"]
    assert waiting.due("room") == []


def test_who_tried_in_vain_waits_for_the_next_signal() -> None:
    waiting = three()
    waiting.signal("room")
    assert waiting.due("room", 1) == ["a"]
    waiting.add("a", "room")
    assert waiting.due("room", 1) == ["b"]
    waiting.signal("room")
    assert waiting.due("room", 1) == ["a"]


def test_who_lacks_something_else_leaves_the_queue() -> None:
    waiting = three()
    waiting.add("a", "other")
    waiting.signal("room")
    assert waiting.due("room") == ["b", "c"]
    waiting.signal("other")
    assert waiting.due("other") == ["a"]


def test_who_is_forgotten_is_due_no_more() -> None:
    waiting = three()
    assert waiting.forget("b") == "room"
    assert waiting.forget("b") is None
    waiting.signal("room")
    assert waiting.due("room") == ["a", "c"]
    assert len(waiting) == 2
