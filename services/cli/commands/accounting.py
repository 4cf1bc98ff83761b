"""`moln accounting`: who took how much, by VM and owner."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterable, Sequence
from datetime import datetime

import click
from google.protobuf.timestamp_pb2 import Timestamp

from moln.operations.v1.operations_service_pb2 import (
    AccountingRecord,
    ListAccountingRecordsRequest,
    ListAccountingRecordsResponse,
)
from services.cli.command_line import Command
from services.cli.exits import usage
from services.cli.options import Name
from services.cli.printing import print_document
from services.cli.resources.users import USERS
from services.cli.session import Session
from services.cli.sizes import clock, parse_seconds
from services.cli.tables import Column, print_table
from services.common.domain.words import counted

LIST = "/moln.operations.v1.OperationsService/ListAccountingRecords"
_HOUR = 3600.0
FIGURES = (
    "running_seconds", "existing_seconds", "unknown_seconds", "cpu_core_hours", "memory_mib_hours", "disk_mib_hours",
    "cpu_used_core_hours", "sampled_seconds",
)  # fmt: skip


def _hours(seconds: float) -> str:
    return f"{seconds / _HOUR:.2f}" if seconds else ""


def _figure(value: float) -> str:
    return f"{value:.2f}" if value else ""


COLUMNS: tuple[Column[AccountingRecord], ...] = (
    Column("OWNER", lambda record: record.owner or str(record.owner_id or "")),
    Column("VM", lambda record: str(record.vm_id or ""), is_number=True),
    Column("NAME", lambda record: record.vm_name),
    Column("RAN H", lambda record: _hours(record.running_seconds), is_number=True),
    Column("THERE H", lambda record: _hours(record.existing_seconds), is_number=True),
    Column("UNKNOWN H", lambda record: _hours(record.unknown_seconds), is_number=True),
    Column("CPU CORE-H", lambda record: _figure(record.cpu_core_hours), is_number=True),
    Column("USED CORE-H", lambda record: _figure(record.cpu_used_core_hours), is_number=True),
    Column("MEMORY MIB-H", lambda record: _figure(record.memory_mib_hours), is_number=True),
    Column("DISK MIB-H", lambda record: _figure(record.disk_mib_hours), is_number=True),
    Column("NOTE", lambda record: "some sizes are not known" if record.is_size_unknown else ""),
)


@click.command(
    "accounting",
    cls=Command,
    examples="""
    moln accounting
    moln accounting --since 7d
    moln accounting --owner anna --since 2026-10-01 --until 2026-11-01
    moln accounting --since 30d -o csv > october.csv
    """,
)
@click.option("--owner", type=Name("user"), help="Only the VMs of this user (others than yourself: administrators).")
@click.option("--since", metavar="TIME", help="From then on: 2026-10-01, 2026-10-01T08:00, or how long ago: 7d.")
@click.option("--until", metavar="TIME", help="Until then.")
@click.option("--output", "-o", type=click.Choice(("table", "json", "csv")), default="table", show_default=True)
@click.pass_obj
def command(session: Session, owner: str | None, since: str | None, until: str | None, output: str) -> None:
    """Shows what VMs took: running time, and CPU, memory and disk that were held for them, in hours.

    Time of which the history knows nothing is shown apart and is in no other figure. CPU used is what samples of the
    last day saw; CPU held is what others could not have.
    """
    request = ListAccountingRecordsRequest(
        owner_id=USERS.id_of(session.client, owner) if owner else 0,
        start_time=_moment("--since", since), end_time=_moment("--until", until),
    )  # fmt: skip
    answer = session.client.unary(LIST, request, ListAccountingRecordsResponse)
    match output:
        case "json":
            print_document(answer, "json")
        case "csv":
            click.echo(csv_text(answer.records), nl=False)
        case _:
            print_table(COLUMNS, [*answer.records, *sums(answer.records)])
            for line in notes(answer):
                click.echo(line)


def sums(records: Sequence[AccountingRecord]) -> list[AccountingRecord]:
    """One line for each owner of several VMs."""
    by_owner: dict[int, AccountingRecord] = {}
    counts: dict[int, int] = {}
    for record in records:
        whole = by_owner.setdefault(record.owner_id, AccountingRecord(owner_id=record.owner_id, owner=record.owner))
        counts[record.owner_id] = counts.get(record.owner_id, 0) + 1
        for name in FIGURES:
            setattr(whole, name, getattr(whole, name) + getattr(record, name))
        whole.is_size_unknown |= record.is_size_unknown
    for owner_id, whole in by_owner.items():
        whole.vm_name = f"all {counted(counts[owner_id], 'VM')}"
    return [whole for owner_id, whole in by_owner.items() if counts[owner_id] > 1]


def notes(answer: ListAccountingRecordsResponse) -> Iterable[str]:
    """The span, and what is not known of it."""
    yield ""
    yield f"from {clock(answer.start_time)} to {clock(answer.end_time)}"
    if answer.start_time == answer.history_start_time:
        yield "the history begins there: what was before is not counted"
    for gap in answer.gaps:
        yield f"a gap in the history ends at {clock(gap.time)}: {gap.message}"


def csv_text(records: Iterable[AccountingRecord]) -> str:
    """Records with a head line, for spreadsheets."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("owner_id", "owner", "vm_id", "vm_name", *FIGURES, "is_size_unknown"))
    for record in records:
        figures = [f"{getattr(record, name):.6f}".rstrip("0").rstrip(".") for name in FIGURES]
        names = (record.owner_id, _cell(record.owner), record.vm_id, _cell(record.vm_name))
        writer.writerow((*names, *figures, str(record.is_size_unknown).lower()))
    return text.getvalue()


def _cell(text: str) -> str:
    """A spreadsheet must not take a name for a formula."""
    return f"'{text}" if text[:1] in "=+-@" and text else text


def _moment(option: str, text: str | None) -> Timestamp | None:
    """A date, a time, or how long ago."""
    if text is None:
        return None
    moment = Timestamp()
    try:
        moment.FromSeconds(int(datetime.fromisoformat(text).astimezone().timestamp()))
    except ValueError:
        try:
            moment.FromSeconds(int(time.time() - parse_seconds(text)))
        except ValueError:
            wanted = "a date (2026-10-01), a time (2026-10-01T08:00) or how long ago (7d)"
            raise usage(f"{option}: '{text}' is neither of these: {wanted}") from None
    return moment
