"""`moln simulate`: a workload over virtual time. Starts services.scheduler.simulate as a process."""

from __future__ import annotations

import click

from services.cli.command_line import Command
from services.cli.starting import become

_FILE = click.Path(exists=True, dir_okay=False)


@click.command(
    "simulate",
    cls=Command,
    examples="""
    moln simulate jobs.csv --cluster hosts.csv
    moln simulate jobs.csv --cluster hosts.csv --policy packing --policy striping=2+preference
    moln simulate jobs.csv --cluster hosts.csv --rank 'FREE_CPU' --rank '- FREE_MEMORY' -o csv
    moln simulate trace.swf --cluster hosts.csv --split 8 --limit 1000 --output results
    """,
)
@click.argument("workload", type=_FILE)
@click.option(
    "--cluster", "hosts", type=_FILE, required=True, help="CSV of hosts: host,cpu,memory_mib,disk_mib,rack,labels."
)
@click.option("--policy", multiple=True, metavar="NAME[=WEIGHT][+…]", help=(
    "A policy to be compared: default, packing, striping, load-aware, preference, or several by weight. Without any: "
    "default, packing and striping."
))  # fmt: skip
@click.option("--rank", multiple=True, metavar="EXPRESSION", help="A rank to be compared, as in requirements.md.")
@click.option("--format", "form", type=click.Choice(("csv", "swf")), help="Format of WORKLOAD (default: by its name).")
@click.option(
    "--split", type=click.IntRange(1), metavar="CPUS", help="SWF: make VMs of at most so many cores of a job."
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Take the first N VMs only.")
@click.option("--until", type=click.FloatRange(0), metavar="SECOND", help="End at this second of the workload.")
@click.option("-o", "output", type=click.Choice(("table", "csv", "json")), default="table", show_default=True)
@click.option("--output", "folder", metavar="FOLDER", type=click.Path(file_okay=False), help=(
    "Also write there: summary.csv, groups.csv, and of each policy what became of every VM."
))  # fmt: skip
def command(
    workload: str, hosts: str, policy: tuple[str, ...], rank: tuple[str, ...], form: str | None, split: int | None,
    limit: int | None, until: float | None, output: str, folder: str | None,
) -> None:  # fmt: skip
    """Places WORKLOAD by the scheduler's own rules, in no time, and compares policies. Needs no cloud.

    WORKLOAD is a CSV file (arrival_s,duration_s,cpu,memory_mib,disk_mib,group,requirement,rank,priority) or a trace in
    the Standard Workload Format.
    """
    given = {"format": form, "split": split, "limit": limit, "until": until, "output": output, "folder": folder}
    become(
        "services.scheduler.simulate",
        [
            *(f"--policy={each}" for each in policy),
            *(f"--rank={each}" for each in rank),
            *(f"--{name}={value}" for name, value in given.items() if value is not None),
            f"--cluster={hosts}",
            "--",
            workload,
        ],
    )
