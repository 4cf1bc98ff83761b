"""docs/requirements.md: every row of its tables is true."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from moln.compute.v1 import placement_pb2, template_pb2
from services.common.domain.errors import MolnError
from services.common.expressions import Kind, parse
from services.scheduler.core.amounts import Amounts
from services.scheduler.core.columns import HostColumns
from services.scheduler.core.explanation import explain
from services.scheduler.core.hosts import HostFacts
from services.scheduler.core.policies import terms
from services.scheduler.core.shapes import shape, shape_key

P = placement_pb2.PlacementPolicy
PAGE = Path(__file__).parents[4] / "docs" / "requirements.md"


def table(heading: str) -> list[list[str]]:
    """The first table whose head begins with this word, row by row, without the head."""
    lines = PAGE.read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return [rows[0], *rows[2:]]


def examples(heading: str, number: int = 0) -> list[tuple[str, ...]]:
    lines = [line for line in PAGE.read_text().split("\n## ") if f"\n| {heading} |" in line]
    assert lines[number]
    rows = []
    for line in lines[number].splitlines():
        if line.startswith("|"):
            cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            rows.append((cells[0].strip("`"), *cells[1:]))
    return rows[2:]


HOSTS = {row[0]: dict(zip(table("host")[0], row, strict=True)) for row in table("host")[1:]}
NUMBERS = ("TOTAL_CPU", "USED_CPU", "TOTAL_MEMORY", "USED_MEMORY")


def columns() -> HostColumns:
    vms: dict[int, int] = {}
    for host_id, row in enumerate(HOSTS.values(), 1):
        vms.update((int(vm_id), host_id) for vm_id in row["CURRENT_VMS"].split(",") if vm_id)
    made = HostColumns(lambda vm_id: [vms[vm_id]] if vm_id in vms else [])
    for host_id, row in enumerate(HOSTS.values(), 1):
        said = {name: text for name, text in row.items() if text and name not in (*NUMBERS, "CURRENT_VMS", "host")}
        total = Amounts(int(row["TOTAL_CPU"]), int(row["TOTAL_MEMORY"]), 1000)
        attributes = said | {"NAME": row["host"], "HOSTNAME": row["host"]}
        made.apply([HostFacts(host_id, row["host"], total=total, attributes=attributes)])
        held = [vm_id for vm_id, its in vms.items() if its == host_id]
        for number, _ in enumerate(held):
            part = (int(row["USED_CPU"]), int(row["USED_MEMORY"])) if number == 0 else (0, 0)
            made.hold(host_id, Amounts(*part, 0))
    return made


def fitting(requirement: str, rank: str = "") -> list[str]:
    """The hosts, best first. The VM takes no room, so that nothing but its expressions decides."""
    template = template_pb2.VmTemplate(requirement=requirement, rank=rank, memory_mib=1024, labels={"disk": "ssd"})
    key = shape_key(template, 0)._replace(memory=0)
    return [each.name for each in explain(columns(), shape(key), 99).candidates]


def test_the_page_has_examples_of_every_kind() -> None:
    counts = [len(examples("requirement")), len(examples("rank")), len(examples("requirement", 1)), len(HOSTS)]
    assert all(found >= least for found, least in zip(counts, (40, 8, 9, 4), strict=True))


@pytest.mark.parametrize(("requirement", "hosts", "why"), examples("requirement"))
def test_a_requirement_leaves_the_hosts_that_the_page_says(requirement: str, hosts: str, why: str) -> None:
    assert sorted(fitting(requirement)) == sorted(hosts.split()), why


@pytest.mark.parametrize(("rank", "order", "why"), examples("rank"))
def test_a_rank_orders_the_hosts_as_the_page_says(rank: str, order: str, why: str) -> None:
    assert fitting("", rank) == order.split(), why


@pytest.mark.parametrize(("requirement", "column", "message"), examples("requirement", 1))
def test_what_is_refused_is_pointed_at_as_the_page_says(requirement: str, column: str, message: str) -> None:
    with pytest.raises(MolnError) as caught:
        parse(requirement, Kind.REQUIREMENT, "requirement")
    assert caught.value.message.splitlines()[0] == f"requirement: {message}, at column {column}"


def test_policies_are_the_ranks_that_the_page_says() -> None:
    said = {row[0]: row[1].strip("`") for row in examples("policy")}
    assert set(said) == {
        name.removeprefix("PLACEMENT_POLICY_").lower().replace("_", "-") for name, number in P.items() if number
    }
    own = parse("FREE_CPU", Kind.RANK)
    for name, text in said.items():
        number = P.Value("PLACEMENT_POLICY_" + name.upper().replace("-", "_"))
        (term,) = terms(((number, 1.0),), own)
        assert term.value == (parse(text, Kind.RANK).score if text else own.score), name


def test_the_hosts_hold_what_the_page_says() -> None:
    used = np.array([[int(row["USED_CPU"]), int(row["USED_MEMORY"])] for row in HOSTS.values()])
    made = columns()
    assert (np.column_stack(made.used[:2]) == used).all()
