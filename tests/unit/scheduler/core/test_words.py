"""What a waiting VM is told, and what an explanation holds."""

from __future__ import annotations

from services.common.expressions import Kind, parse
from services.scheduler.core.amounts import Amounts
from services.scheduler.core.columns import HostColumns
from services.scheduler.core.explanation import explain
from services.scheduler.core.hosts import HostFacts
from services.scheduler.core.shapes import Shape
from services.scheduler.core.words import FITS, Why, unknown_attributes, unknown_words, why

MIB = 1024


def shape(cpu: int = 100, memory_mib: int = 128, requirement: str = "", rank: str = "", wanted: int = 0) -> Shape:
    return Shape(
        Amounts(cpu, memory_mib * MIB),
        parse(requirement, Kind.REQUIREMENT),
        parse(rank, Kind.RANK),
        wanted_host_id=wanted,
    )


def columns(*hosts: HostFacts) -> HostColumns:
    made = HostColumns()
    made.apply(hosts)
    return made


def host(
    host_id: int, *, enabled: bool = True, connected: bool = True, rack: str = "1", memory: int = 1024
) -> HostFacts:
    return HostFacts(
        host_id, f"h{host_id}", enabled, connected, False, Amounts(400, memory * MIB, 0), attributes={"RACK": rack}
    )


def told(made: HostColumns, wish: Shape) -> Why:
    return why(made, made.room(), wish)


def test_no_reason_is_given_where_a_host_fits() -> None:
    assert told(columns(host(1)), shape()) == FITS


def test_each_filter_says_what_it_left() -> None:
    hosts = [host(number, enabled=number != 1, rack="2" if number > 5 else "1") for number in range(1, 13)]
    assert told(columns(*hosts), shape(memory_mib=4096, requirement="RACK = 2")) == Why(
        "NO_HOST_FITS", "12 hosts: 11 enabled, 7 match the requirement, 0 have 4096 MiB free"
    )


def test_hosts_that_are_not_heard_are_said_to_be_so() -> None:
    made = columns(host(1, connected=False), host(2))
    assert told(made, shape(cpu=900)).message == "2 hosts: 2 enabled, 1 connected, 0 have 900 % of CPU free"
    assert told(columns(host(1, connected=False)), shape()) == Why("NO_HOSTS", "1 host: 1 enabled, 0 connected")


def test_the_host_that_was_asked_for_may_not_exist() -> None:
    assert told(columns(host(1)), shape(wanted=9)).message == "1 host: 1 enabled, 0 with the id 9 that was asked for"


def test_attributes_that_no_host_has_are_named() -> None:
    assert told(columns(host(1)), shape(requirement="RAK = 1")).message.endswith("; no host has the attribute RAK")


def test_a_name_that_is_nearly_right_is_told_the_right_one() -> None:
    made = columns(host(1))
    assert unknown_attributes(made, {"RAC", "FREE_MEM", "HOSTNAMES", "CURRENT_VMS", "VM_MEMORY", "ZEBRA"}) == [
        "FREE_MEM", "HOSTNAMES", "RAC", "ZEBRA",
    ]  # fmt: skip
    assert unknown_words(made, ["RAC", "FREE_MEMRY", "ZEBRA"]) == [
        "no host has the attribute RAC; did you mean RACK?",
        "no host has the attribute FREE_MEMRY; did you mean FREE_MEMORY?",
        "no host has the attribute ZEBRA",
    ]


def test_an_explanation_shows_the_best_hosts_first() -> None:
    found = explain(columns(host(1), host(2, memory=2048), host(3, rack="9")), shape(), 2)
    assert [(each.name, each.score) for each in found.candidates] == [("h2", 0.0), ("h1", 0.0)]
    ranked = explain(columns(host(1), host(2, rack="4"), host(3, rack="9")), shape(rank="RACK"), 2)
    assert [(each.name, each.score) for each in ranked.candidates] == [("h3", 9.0), ("h2", 4.0)]


def test_a_vm_that_has_a_host_is_explained_as_if_it_had_none() -> None:
    made = columns(host(1))
    made.hold(1, Amounts(400, 1024 * MIB))
    assert explain(made, shape(cpu=400), 5).why.reason == "NO_HOST_FITS"
    assert explain(made, shape(cpu=400), 5, 1, Amounts(400, 1024 * MIB)).why == FITS
    assert made.room().free[0].tolist() == [0]
