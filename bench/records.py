"""What a benchmark says, its table, and the file of results. A run replaces its own records and keeps the others."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).parent / "results.json"


@dataclass(frozen=True)
class Record:
    """One figure. `ratio` is value ÷ reference, in the unit that the design's table names."""

    name: str
    scale: int
    """Number of VMs."""
    value: float
    unit: str
    """s, VMs/s, ops/s, MiB or ratio."""
    reference: float = 0.0
    """The same thing of the peer that was measured beside it; 0 where there is none."""
    ratio: float = 0.0
    note: str = ""
    """What is behind the figure: spread, peers, keys and CPU per VM."""


def save(records: Iterable[Record], file: Path = RESULTS) -> None:
    """Writes the records into the file, in place of former ones of the same names."""
    new = [dataclasses.asdict(record) for record in records]
    names = {record["name"] for record in new}
    try:
        former = [record for record in json.loads(file.read_text()) if record["name"] not in names]
    except (OSError, ValueError):
        former = []
    file.write_text(json.dumps([*former, *new], indent=1) + "\n")


def line(record: Record) -> str:
    """One row of the table."""
    reference = f"{record.reference:,.4g}" if record.reference else "-"
    ratio = f"{record.ratio:.2f}" if record.ratio else "-"
    return (
        f"{record.name:<16} {record.scale:>8,} {record.value:>12,.4g} {record.unit:<7} {reference:>12} {ratio:>8}  "
        f"{record.note}"
    )


HEADER = f"{'benchmark':<16} {'scale':>8} {'value':>12} {'unit':<7} {'reference':>12} {'ratio':>8}  what is behind it"
