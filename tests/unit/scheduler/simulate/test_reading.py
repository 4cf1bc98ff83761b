"""Workloads, traces and clusters as files: what is read from them, and what is said of those that are wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from services.scheduler.core.amounts import Amounts
from services.scheduler.simulate.bad_input import BadInput
from services.scheduler.simulate.cluster import read_hosts
from services.scheduler.simulate.contenders import contenders
from services.scheduler.simulate.swf import parts, read_swf
from services.scheduler.simulate.workload import Job, Wanted, read_csv

EXAMPLES = Path(__file__).resolve().parents[4] / "examples" / "simulate"
SECOND = 1_000_000
SWF = """\
; Version: 2.2
; MaxNodes: 4
; Note: fields 1 to 18, -1 is unknown

1 0 5 60 16 55.5 -1 16 600 1048576 1 3 7 -1 2 -1 -1 -1
2 30 -1 120 -1 -1 2048 4 600 -1 1 3 -1 -1 2 -1 -1 -1
3 31 -1 0 4 -1 -1 4 600 -1 5 3 7 -1 2 -1 -1 -1
4 32 -1 -1 4 -1 -1 4 600 -1 5 3 7 -1 2 -1 -1 -1
5 33 -1 10 -1 -1 -1 -1 600 -1 1 3 7 -1 2 -1 -1 -1
6 34 -1 10 1 -1 -1 -1 600 -1 1 3 7 -1 2 -1 -1 -1   ; the last one
"""
Write = Callable[[str, str], Path]


@pytest.fixture
def write(folder: Path) -> Write:
    """Writes a file and returns its path."""

    def write(name: str, text: str) -> Path:
        path = folder / name
        path.write_text(text)
        return path

    return write


def test_the_examples_can_be_read() -> None:
    assert len(read_csv(EXAMPLES / "jobs.csv").jobs) == 9
    assert len(read_hosts(EXAMPLES / "hosts.csv")) == 4


def test_vms_are_in_the_order_of_their_arrival_and_equal_ones_are_of_one_kind(write: Write) -> None:
    path = write(
        "jobs.csv", "arrival_s,duration_s,cpu,memory_mib\n7.5,1,0.25,10\n0,2,1,10\n\n# so far\n7.5,3,0.25,10\n"
    )
    found = read_csv(path)
    assert found.jobs == [
        Job(0, 2 * SECOND, 1),
        Job(7_500_000, SECOND, 0),
        Job(7_500_000, 3 * SECOND, 0),
    ]
    assert found.kinds == [Wanted(25, 10), Wanted(100, 10)]
    assert read_csv(path, limit=1).jobs == [Job(0, 2 * SECOND, 1)]


def test_a_requirement_with_commas_and_quotes_stands_in_quotes(write: Write) -> None:
    text = 'arrival_s,duration_s,cpu,memory_mib,requirement\n0,1,1,1,"NAME = ""a,b"" | ID = 1"\n'
    assert read_csv(write("jobs.csv", text)).kinds[0].requirement == 'NAME = "a,b" | ID = 1'


HEADER = "arrival_s,duration_s,cpu,memory_mib,disk_mib,group,requirement,rank,priority\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "jobs.csv: is empty; its first line names the columns: arrival_s,duration_s,cpu,memory_mib"),
        ("arrival_s,cpu\n", "jobs.csv, line 1: without the column duration_s, memory_mib"),
        ("arrival_s,duration_s,cpu,memory\n", "line 1, column memory: is not known; did you mean memory_mib?"),
        ("cpu,cpu\n", "line 1, column cpu: is there twice"),
        (HEADER, "jobs.csv: no VM is in it"),
        (HEADER + "0,1,1\n", "line 2: 3 cells, where the header has 9 columns"),
        (HEADER + "0,1,1,1,,,,,\nx,1,1,1,,,,,\n", "line 3, column arrival_s: 'x' is no number"),
        (HEADER + "-1,1,1,1,,,,,\n", "line 2, column arrival_s: '-1' is not between 0 and"),
        (HEADER + "nan,1,1,1,,,,,\n", "column arrival_s: 'nan' is not between"),
        (HEADER + "0,,1,1,,,,,\n", "column duration_s: is empty; a number is expected"),
        (HEADER + "0,0,1,1,,,,,\n", "column duration_s: '0' is too short; above 0 is expected"),
        (HEADER + "0,1,0,1,,,,,\n", "column cpu: '0' is no number of cores in steps of 0.01, at least 0.01"),
        (HEADER + "0,1,0.001,1,,,,,\n", "column cpu: '0.001' is no number of cores"),
        (HEADER + "0,1,1,1.5,,,,,\n", "column memory_mib: '1.5' is no whole number"),
        (HEADER + "0,1,1,1,,,FREE_CPU >,,\n", "line 2, column requirement: the expression ends too early"),
        (HEADER + "0,1,1,1,,,,\"NAME = 'x'\",\n", "line 2, column rank: "),
        (HEADER + "0,1,1,1,,,,,high\n", "column priority: 'high' is no number"),
        (HEADER + '0,1,1,1,,,"open,,\n', "line 2: unexpected end of data"),
    ],
)
def test_what_is_wrong_with_a_workload_is_said_with_file_line_and_column(write: Write, text: str, problem: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_csv(write("jobs.csv", text))
    assert problem in str(caught.value)


def test_a_file_that_is_no_text_or_not_there_is_named(write: Write, folder: Path) -> None:
    (folder / "raw.csv").write_bytes(b"arrival_s\xff")
    with pytest.raises(BadInput, match="raw.csv: byte 9 is no UTF-8"):
        read_csv(folder / "raw.csv")
    with pytest.raises(BadInput, match="none.csv: No such file"):
        read_csv(folder / "none.csv")


def test_a_trace_gives_processors_memory_for_each_and_run_time(write: Write) -> None:
    found = read_swf(write("trace.swf", SWF))
    assert [(job.arrival, job.duration, found.kinds[job.kind]) for job in found.jobs] == [
        (0, 60 * SECOND, Wanted(1600, 16 * 1024, group="7")),
        (30 * SECOND, 120 * SECOND, Wanted(400, 8)),
        (34 * SECOND, 10 * SECOND, Wanted(100, 0, group="7")),
    ]
    said = [note.partition("trace.swf: ")[2] for note in found.notes]
    assert said == [
        "left out: 2 jobs that never ran (run time 0 or unknown)",
        "left out: 1 job without a number of processors",
        "1 job without memory, requested or used: they take none",
    ]


def test_a_job_becomes_several_vms_that_are_as_even_as_can_be(write: Write) -> None:
    assert [parts(9, 4), parts(8, 4), parts(3, 4), parts(9, None)] == [[3, 3, 3], [4, 4], [3], [9]]
    found = read_swf(write("trace.swf", SWF), split=10)
    assert [found.kinds[job.kind].cpu_percent for job in found.jobs] == [800, 800, 400, 100]
    assert sum(found.kinds[job.kind].memory_mib for job in found.jobs) == 16 * 1024 + 8


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("; nothing\n", "trace.swf: no VM is in it"),
        ("1 2 3\n", "trace.swf, line 1: 3 fields, where the Standard Workload Format has 18"),
        (SWF.replace(" 60 16 ", " soon 16 "), "trace.swf, line 5, column 4 (run): 'soon' is no number"),
        (SWF.replace("\n2 30 ", "\n2 -1 "), "line 6, column 2 (submit): is not known; a job must say when it came"),
        (SWF.replace(" 60 16 ", " 60 -16 "), "line 5, column 5 (processors): '-16' is not between -1 and"),
        (SWF.replace(" 60 16 ", " nan 16 "), "column 4 (run): 'nan' is not between"),
    ],
)
def test_what_is_wrong_with_a_trace_is_said_with_the_number_of_the_field(write: Write, text: str, problem: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_swf(write("trace.swf", text))
    assert problem in str(caught.value)


def test_hosts_have_racks_and_labels_as_real_ones_have(write: Write) -> None:
    text = (
        "host,cpu,memory_mib,disk_mib,rack,labels\na,4,2048,10,r1,disk=ssd preference=3\nb,2,1024,,,zone=z;disk=hdd\n"
    )
    first, second = read_hosts(write("hosts.csv", text))
    assert (first.host_id, first.name, first.total) == (1, "a", Amounts(400, 2048 * 1024, 10))
    assert first.attributes["LABEL_RACK"] == "r1"
    assert (first.attributes["LABEL_DISK"], first.attributes["PREFERENCE"]) == ("ssd", "3")
    assert (second.attributes["LABEL_ZONE"], second.attributes["LABEL_DISK"]) == ("z", "hdd")
    assert second.total == Amounts(200, 1024 * 1024, 0)
    assert first.is_connected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("host,cpu,memory_mib\n", "hosts.csv: no host is in it"),
        ("host,cpu,memory_mib\na,1,1\na,1,1\n", "line 3, column host: 'a' is there twice"),
        ("host,cpu,memory_mib\n,1,1\n", "line 2, column host: is empty"),
        ("host,cpu,memory_mib\na,0,1\n", "line 2, column cpu: '0' is not between 1 and"),
        ("host,cpu,memory_mib\na,1.5,1\n", "line 2, column cpu: '1.5' is no whole number"),
        ("host,cpu,memory_mib,labels\na,1,1,ssd\n", "line 2, column labels: 'ssd' is no label; key=value is expected"),
        ("host,cpu,memory_mib,labels\na,1,1,-x=1\n", "line 2, column labels: "),
        ("host,cpu,memory_mib,rack,labels\na,1,1,r,rack=s\n", "line 2, column labels: 'rack' is there twice"),
    ],
)
def test_what_is_wrong_with_a_cluster_is_said_with_file_line_and_column(write: Write, text: str, problem: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_hosts(write("hosts.csv", text))
    assert problem in str(caught.value)


def test_what_is_compared_is_named_by_policies_and_ranks() -> None:
    assert [each.name for each in contenders([], [])] == ["default", "packing", "striping"]
    assert [each.name for each in contenders([], ["FREE_CPU"])] == ["FREE_CPU"]
    found = contenders(["default", "packing=2+preference"], ["-FREE_CPU"])
    assert [(each.name, each.rank.is_empty) for each in found] == [
        ("default", True),
        ("packing=2+preference", False),
        ("-FREE_CPU", False),
    ]


@pytest.mark.parametrize(
    ("policies", "ranks", "problem"),
    [
        (["best"], [], "there is no policy 'best' for all hosts; there are: packing, striping"),
        (["packing=0"], [], "'packing=0': the weight is a number above 0"),
        (["packing", "packing"], [], "'packing' is named twice"),
        ([], [""], "--rank '' is empty"),
        ([], ["FREE_CPU +"], "--rank: "),
        ([], ["VM_CPU"], "VM_CPU is of a VM; a rank for all VMs cannot name it"),
    ],
)
def test_what_cannot_be_compared_is_refused(policies: list[str], ranks: list[str], problem: str) -> None:
    with pytest.raises(BadInput) as caught:
        contenders(policies, ranks)
    assert problem in str(caught.value)
