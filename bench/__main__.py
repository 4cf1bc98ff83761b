"""`python -m bench [--only PREFIX] [--scale N]`: runs the benchmarks, prints a table, writes bench/results.json."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import uvloop

from bench import adopting, agents, moves, peers, vms
from bench.records import HEADER, RESULTS, Record, line, save

SCALE = 10_000

BENCHMARKS: Mapping[str, Callable[[int], Awaitable[list[Record]]]] = {
    "first_running": vms.first_running,
    "burst": vms.burst,
    "create_single": vms.create_single,
    "create_batch": vms.create_batch,
    "list": vms.list_vms,
    "agent_sweep": agents.agent_sweep,
    "agent_start": agents.agent_start,
    "agent_adopt": adopting.agent_adopt,
    "migration_steps": moves.migration_steps,
    "drain_50": moves.drain_50,
}


def main() -> None:
    """Runs what was asked for."""
    parser = argparse.ArgumentParser(
        prog="bench", description="Every figure beside something measured in the same run."
    )
    parser.add_argument("--only", default="", metavar="PREFIX", help="benchmarks whose names begin so")
    parser.add_argument("--scale", type=int, default=SCALE, metavar="VMS", help=f"most VMs (default {SCALE:,})")
    arguments = parser.parse_args()
    chosen = {name: run for name, run in BENCHMARKS.items() if name.startswith(arguments.only)}
    if not chosen:
        parser.error(f"no benchmark begins with '{arguments.only}'; there are {', '.join(BENCHMARKS)}")
    folder = Path(tempfile.gettempdir())
    cores, fsync = os.cpu_count(), peers.fsync_seconds(folder) * 1000
    print(
        f"{cores} cores shared by stack and load; data in {folder}, fsync {fsync:.1f} ms; authentication and checks on"
    )
    print(HEADER)
    for run in chosen.values():
        records = uvloop.run(_run(run, arguments.scale))
        save(records)
        for record in records:
            print(line(record), flush=True)
    print(f"written to {RESULTS}")


async def _run(run: Callable[[int], Awaitable[list[Record]]], scale: int) -> list[Record]:
    return await run(scale)


if __name__ == "__main__":
    main()
