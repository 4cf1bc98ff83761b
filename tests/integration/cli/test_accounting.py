"""`moln accounting` and `moln vm history` against canned answers."""

from __future__ import annotations

import csv
import io
import time

from google.protobuf.timestamp_pb2 import Timestamp

from moln.common.v1.common_pb2 import Cause
from moln.operations.v1.operations_service_pb2 import (
    AccountingRecord,
    Event,
    HostStay,
    ListAccountingRecordsResponse,
    VmHistory,
)
from tests.integration.cli.conftest import Moln
from tests.support.api import CannedApi

BEGIN = Timestamp(seconds=1_790_000_000)


def record(vm_id: int, name: str = "web", hours: float = 2.0) -> AccountingRecord:
    return AccountingRecord(
        vm_id=vm_id, vm_name=name, owner_id=2, owner="anna", running_seconds=hours * 3600,
        existing_seconds=3 * 3600, unknown_seconds=1800, cpu_core_hours=hours, memory_mib_hours=hours * 512,
    )  # fmt: skip


def test_records_are_shown_with_the_sum_of_their_owner_and_what_is_not_known(api: CannedApi, moln: Moln) -> None:
    gap = Event(kind="gap", message="events are missing", time=Timestamp(seconds=1_790_000_500))
    api.answers["ListAccountingRecords"] = ListAccountingRecordsResponse(
        records=[record(7), record(8, "db", 1.5)], gaps=[gap], start_time=BEGIN, history_start_time=BEGIN
    )
    shown = moln("accounting").out
    (first,) = [line.split() for line in shown.splitlines() if " web " in line]
    assert first[:6] == ["anna", "7", "web", "2.00", "3.00", "0.50"]
    (whole,) = [line for line in shown.splitlines() if "all 2 VMs" in line]
    assert whole.split()[-5:] == ["3.50", "-", "1792.00", "-", "-"]
    assert "a gap in the history ends at" in shown
    assert "the history begins there" in shown


def test_csv_is_for_spreadsheets_and_starts_no_formula(api: CannedApi, moln: Moln) -> None:
    api.answers["ListAccountingRecords"] = ListAccountingRecordsResponse(records=[record(7, "=cmd|x")])
    rows = list(csv.DictReader(io.StringIO(moln("accounting", "-o", "csv").out)))
    assert (rows[0]["owner"], rows[0]["vm_name"], rows[0]["cpu_core_hours"]) == ("anna", "'=cmd|x", "2")


def test_spans_are_dates_times_or_how_long_ago(api: CannedApi, moln: Moln) -> None:
    api.answers["ListAccountingRecords"] = ListAccountingRecordsResponse()
    moln("accounting", "--since", "7d", "--until", "2027-01-01T08:00:00+00:00", "--owner", "3")
    (asked,) = api.requests("ListAccountingRecords")
    assert abs(asked.start_time.seconds - (time.time() - 7 * 86400)) < 60
    assert (asked.end_time.seconds, asked.owner_id) == (1_798_790_400, 3)
    refused = moln("accounting", "--since", "yesterday")
    assert (refused.code, "--since: 'yesterday'" in refused.err) == (2, True)


def test_the_history_of_a_vm_names_hosts_causes_and_gaps(api: CannedApi, moln: Moln) -> None:
    stay = HostStay(
        host_id=1, host="node-1", start_time=BEGIN, running_seconds=7300, last_state="RUNNING",
        start_cause=Cause(actor="<scheduler>"),
    )  # fmt: skip
    event = Event(kind="vm", to="RUNNING", time=BEGIN, cause=Cause(actor="<node node-1>"))
    api.answers["GetVmHistory"] = VmHistory(
        id=7, name="web", stays=[stay], transitions=[event], gaps=[Event(message="lost")], is_cut=True
    )
    shown = moln("vm", "history", "7")
    assert shown.code == 0
    assert "node-1" in shown.out
    assert "<scheduler>" in shown.out
    assert "2h" in shown.out
    assert "· → RUNNING" in shown.out
    assert "lost" in shown.out
    assert "begins after the VM was created" in shown.out
