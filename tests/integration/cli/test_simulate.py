"""`moln simulate` as a user runs it: a process that reads files, prints figures, and says what is wrong in a line."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "examples" / "simulate"
JOBS, HOSTS = str(EXAMPLES / "jobs.csv"), str(EXAMPLES / "hosts.csv")
TRACE = """\
; UnixStartTime: 0
1 0 -1 60 16 -1 -1 -1 -1 1024 1 1 1 1 1 1 -1 -1
2 10 -1 60 1 -1 -1 -1 -1 1024 1 1 1 1 1 1 -1 -1
"""


def moln(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs `moln simulate WORDS…`."""
    command = [sys.executable, "-m", "services.cli", "simulate", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)})


def test_policies_stand_side_by_side_in_a_table(folder: Path) -> None:
    found = moln(JOBS, "--cluster", HOSTS, "--policy", "packing", "--rank", "- FREE_MEMORY", folder=folder)
    lines = found.stdout.splitlines()
    assert lines[0].split("  ")[0] == "POLICY"
    assert lines[0].endswith("packing  - FREE_MEMORY")
    assert "placed" in found.stdout
    assert "1 VM can be placed on no host: 4 hosts: 4 enabled, 0 have 3200 % of CPU free" in found.stderr
    assert "packing: 25 events in" in found.stderr


def test_the_same_input_gives_the_same_output_in_every_form(folder: Path) -> None:
    printed = []
    for _ in range(2):
        words = (JOBS, "--cluster", HOSTS, "--output", "found", "-o", "json")
        run = moln(*words, folder=folder)
        assert run.returncode == 0, run.stderr
        printed.append(run.stdout + "".join(path.read_text() for path in sorted((folder / "found").iterdir())))
    assert printed[0] == printed[1]
    documents = json.loads(run.stdout)
    assert [each["policy"] for each in documents] == ["default", "packing", "striping"]
    assert documents[0]["vms"] == 9
    assert [group["group"] for group in documents[0]["groups"]] == ["batch", "database", "web"]
    summary = (folder / "found" / "summary.csv").read_text()
    assert summary == moln(JOBS, "--cluster", HOSTS, "-o", "csv", folder=folder).stdout
    assert [row["placed"] for row in csv.DictReader(io.StringIO(summary))] == ["8", "8", "8"]
    names = sorted(path.name for path in (folder / "found").iterdir())
    assert names == ["groups.csv", "summary.csv", "vms-1-default.csv", "vms-2-packing.csv", "vms-3-striping.csv"]
    with (folder / "found" / "vms-2-packing.csv").open() as lines:
        vms = list(csv.DictReader(lines))
    assert [row["host"] for row in vms].count("") == 1
    assert vms[0] == {
        "vm": "1", "arrival_s": "0.0", "start_s": "0.0", "end_s": "3600.0", "host": vms[0]["host"], "group": "web",
    }  # fmt: skip


def test_a_trace_is_known_by_its_name_or_by_format_and_its_jobs_can_be_split(folder: Path) -> None:
    for name, words in (("trace.swf", ()), ("trace.txt", ("--format", "swf"))):
        (folder / name).write_text(TRACE)
        run = moln(name, "--cluster", HOSTS, "--split", "8", "--policy", "default", "-o", "json", *words, folder=folder)
        assert json.loads(run.stdout)[0]["placed"] == 3, run.stderr
    run = moln("trace.swf", "--cluster", HOSTS, "--limit", "1", "-o", "json", folder=folder)
    assert [each["vms"] for each in json.loads(run.stdout)] == [1, 1, 1]


def test_an_end_is_a_second_of_the_workload(folder: Path) -> None:
    run = moln(JOBS, "--cluster", HOSTS, "--until", "100", "-o", "json", folder=folder)
    assert json.loads(run.stdout)[0]["vms"] == 3


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("none.csv", "--cluster", HOSTS), "'none.csv' does not exist"),
        ((JOBS,), "Missing option '--cluster'"),
        ((JOBS, "--cluster", JOBS), "jobs.csv, line 1, column arrival_s: is not known"),
        ((JOBS, "--cluster", HOSTS, "--policy", "best"), "there is no policy 'best'"),
        ((JOBS, "--cluster", HOSTS, "--rank", "FREE_CPU >"), "--rank: "),
        ((JOBS, "--cluster", HOSTS, "--split", "2"), "--split is for the Standard Workload Format"),
        ((JOBS, "--cluster", HOSTS, "--format", "swf"), "jobs.csv, line 1: 1 fields, where the Standard Workload"),
        ((JOBS, "--cluster", HOSTS, "--limit", "0"), "'--limit'"),
        ((JOBS, "--cluster", HOSTS, "--until", "nan"), "--until nan: the first VM comes at 0 s"),
    ],
)
def test_what_is_wrong_is_said_in_a_line_with_the_code_of_wrong_usage(
    words: tuple[str, ...], problem: str, folder: Path
) -> None:
    found = moln(*words, folder=folder)
    assert found.returncode == 2
    assert found.stdout == ""
    assert problem in found.stderr
    assert "Traceback" not in found.stderr


def test_an_attribute_that_no_host_has_is_a_warning(folder: Path) -> None:
    found = moln(JOBS, "--cluster", HOSTS, "--rank", "LABEL_DISC", folder=folder)
    assert found.returncode == 0
    assert "moln: warning: no host has the attribute LABEL_DISC; did you mean LABEL_DISK?" in found.stderr


def test_a_folder_that_cannot_be_written_is_named(folder: Path) -> None:
    (folder / "file").write_text("")
    found = moln(JOBS, "--cluster", HOSTS, "--output", "file/results", folder=folder)
    assert found.returncode == 1
    assert "moln: file" in found.stderr
    assert "Traceback" not in found.stderr
