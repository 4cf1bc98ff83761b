"""Lines of scripts into messages, bytes into lines, requests through the deaths of their script: all without I/O."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.exec.flights import Flight, Flights, Leg
from services.common.exec.lines import Allowance, LineBuffer, LineTooLong
from services.common.exec.oneshot import variables_of
from services.common.exec.protocol import (
    Failure,
    Hello,
    Log,
    NotAMessage,
    Progress,
    Recovered,
    Request,
    Result,
    parse,
    request_line,
)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"hello": {"protocol": 1}}', Hello("", "", frozenset(), 1)),
        (
            '{"hello": {"protocol": 1, "name": "n", "version": "2", "capabilities": ["recover"], "concurrency": 3}}',
            Hello("n", "2", frozenset({"recover"}), 3),
        ),
        ('{"id": "a", "result": {"x": 1}}', Result("a", {"x": 1})),
        ('{"result": {}}', Result("", {})),
        ('{"id": "a", "error": {}}', Failure("a", "it gave no reason", "", False)),
        ('{"id": "a", "error": {"reason": "R", "message": "m", "retryable": true}}', Failure("a", "m", "R", True)),
        ('{"id": "a", "progress": {"percent": 12.7, "text": "t"}}', Progress("a", 12, "t")),
        ('{"id": "a", "recovered": "running"}', Recovered("a", True)),
        ('{"id": "a", "recovered": "unknown"}', Recovered("a", False)),
        ('{"log": {"text": "t"}}', Log("info", "t")),
    ],
)
def test_a_line_is_one_message(line: str, message: object) -> None:
    assert parse(line.encode()) == message


@pytest.mark.parametrize(
    "line",
    [
        "", "x", "[]", "7", "{}", '{"id": 7, "result": {}}', '{"id": "a", "result": 7}', '{"hello": {}}',
        '{"hello": {"protocol": 2}}', '{"hello": {"protocol": 1, "concurrency": 0}}',
        '{"hello": {"protocol": 1, "capabilities": [1]}}', '{"id": "a", "progress": {"percent": NaN}}',
        '{"id": "a", "progress": {"percent": true}}', '{"id": "a", "recovered": "maybe"}',
        '{"log": {"level": "critical"}}', '{"log": {"text": 1}}', "[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_message_says_why(line: str) -> None:
    with pytest.raises(NotAMessage, match="."):
        parse(line.encode())


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parser(line: bytes) -> None:
    try:
        parse(line)
    except NotAMessage:
        return


def test_a_request_is_one_line_whatever_is_in_it() -> None:
    line = request_line(Request("a", "m", {"text": "two\nlines", "å": [1, None]}))
    assert line.count(b"\n") == 1
    assert json.loads(line) == {"id": "a", "method": "m", "params": {"text": "two\nlines", "å": [1, None]}}


@given(st.lists(st.binary(max_size=20).filter(lambda each: b"\n" not in each)), st.integers(1, 7))
def test_lines_are_cut_alike_however_they_arrive(lines: list[bytes], size: int) -> None:
    stream, buffer, found = b"".join(line + b"\n" for line in lines), LineBuffer(20), list[bytes]()
    for start in range(0, len(stream), size):
        found += buffer.feed(stream[start : start + size])
    assert found == lines


def test_a_line_beyond_the_bound_is_an_error_after_the_lines_before_it() -> None:
    found: Iterator[bytes] = LineBuffer(5).feed(b"12345\n123456")
    assert next(found) == b"12345"
    with pytest.raises(LineTooLong):
        next(found)


def test_what_is_withheld_is_counted_until_the_time_is_over() -> None:
    now = [0.0]
    allowance = Allowance(2, 10.0, lambda: now[0])
    assert [allowance.take() for _ in range(4)] == [True, True, False, False]
    now[0] = 10.0
    assert allowance.take()
    assert (allowance.take_withheld(), allowance.take_withheld()) == (2, 0)


def test_only_plain_parameters_become_variables() -> None:
    params = {"pid_file": "/x y", "force": True, "n": 3, "deep": {"a": 1}, "a-b": "no", "zero": "a\0b", "PATH": "/"}
    assert variables_of(params) == {"MOLN_PID_FILE": "/x y", "MOLN_FORCE": "true", "MOLN_N": "3", "MOLN_PATH": "/"}


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def flights_of(loop: asyncio.AbstractEventLoop, *ids: str) -> Flights:
    flights = Flights()
    for each in ids:
        flights.add(Flight(Request(each, "m", {}), loop.create_future()))
    return flights


def ids_of(found: list[Flight]) -> list[str]:
    return [flight.request.id for flight in found]


def test_a_request_that_two_processes_died_of_is_not_sent_a_third_time(loop: asyncio.AbstractEventLoop) -> None:
    flights = flights_of(loop, "a", "b")
    assert ids_of(flights.to_send(1)) == ["a"]
    assert flights.lose(can_recover=True) == []
    assert flights.to_send(1) == [], "b was sent before it was known what became of a"
    assert ids_of(flights.ask()) == ["a"]
    flights.found("a", is_running=False)
    assert ids_of(flights.to_send(1)) == ["a"]
    assert ids_of(flights.lose(can_recover=True)) == ["a"]
    assert ids_of(flights.to_send(1)) == ["b"]


def test_without_recovery_what_was_sent_ends_and_what_waited_waits_on(loop: asyncio.AbstractEventLoop) -> None:
    flights = flights_of(loop, "a", "b", "c")
    flights.to_send(2)
    assert ids_of(flights.lose(can_recover=False)) == ["a", "b"]
    assert ids_of(flights.on(Leg.WAITING)) == ["c"]


def test_a_script_that_dies_while_it_is_asked_is_asked_again(loop: asyncio.AbstractEventLoop) -> None:
    flights = flights_of(loop, "a")
    flights.to_send(1)
    for _ in range(3):
        assert flights.lose(can_recover=True) == []
        assert ids_of(flights.ask()) == ["a"]
    assert flights.found("a", is_running=True) is not None
    assert ids_of(flights.on(Leg.SENT)) == ["a"]


def test_what_is_abandoned_counts_until_the_script_has_answered(loop: asyncio.AbstractEventLoop) -> None:
    flights = flights_of(loop, "a", "b")
    (flight,) = flights.to_send(1)
    assert flights.abandon(flight), "the script is to be told"
    assert flights.to_send(1) == []
    assert flights.land("a") is flight
    assert ids_of(flights.to_send(1)) == ["b"]


def test_what_is_abandoned_and_unknown_to_the_script_is_forgotten(loop: asyncio.AbstractEventLoop) -> None:
    flights = flights_of(loop, "a")
    (flight,) = flights.to_send(1)
    flights.lose(can_recover=True)
    assert not flights.abandon(flight)
    flights.ask()
    flights.found("a", is_running=False)
    assert flights.by_id == {}
