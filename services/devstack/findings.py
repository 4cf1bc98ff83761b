"""What `moln doctor` finds: one line each, with the remedy, and what --fix does about it. Looks; changes nothing."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.common import stacks
from services.common.exec import CommandError, run_program
from services.common.stacks import StackRecord
from services.devstack import cleanup, repairs
from services.devstack.layout import Folder, load_memory
from services.devstack.stack import is_held

NET = Path("/sys/class/net")
MARK = "moln:"
MOUNTS = Path("/proc/self/mountinfo")


@dataclass(frozen=True)
class Finding:
    """Something left over or wrong."""

    text: str
    remedy: str
    fix: Callable[[], Awaitable[None]] | None = None
    """What --fix does; None where only a person can."""


@dataclass(frozen=True)
class Bridge:
    """A bridge that carries moln's mark."""

    name: str
    network_uid: str
    has_ports: bool


def of_stack(record: StackRecord) -> Iterator[Finding]:
    """What is left over of a stack that does not run."""
    folder = Folder(Path(record.state_dir))
    if is_held(folder):
        return
    if record.pid:
        words = f"the cloud {record.name} ({folder.path}) was killed: its record still says process {record.pid}"
        yield Finding(words, "`moln doctor --fix` corrects it", lambda: repairs.correct_record(record))
    memory = load_memory(folder)
    for item in cleanup.leftovers(folder):
        if item.kind == "guest" and memory is not None and memory.keeps_guests:
            continue
        yield Finding(
            f"{item.title} (process {item.pid}) still works for the cloud {record.name}, which does not run",
            "`moln doctor --fix` ends it, `moln dev up` takes a guest over",
            _ending(folder, item.kind),
        )
    for mount in mounts_under(folder.path):
        yield Finding(f"{mount} is still mounted", f"umount {mount}", _unmounting(mount))


def of_registry() -> Iterator[Finding]:
    """Entries of the list of stacks whose folder is gone."""
    for path in sorted(stacks.registry_folder(os.environ).glob("*.json")):
        record = stacks.load(path)
        if record is None or not Path(record.state_dir).is_dir():
            name = record.state_dir if record else "no folder that can be read"
            yield Finding(f"the list of stacks names {name}, which is gone", f"rm {path}", _removing(path))


def of_bridges(known_networks: Sequence[str]) -> Iterator[Finding]:
    """Bridges of moln's that no running cloud has."""
    for bridge in marked_bridges():
        if bridge.network_uid in known_networks or bridge.has_ports:
            continue
        yield Finding(
            f"the bridge {bridge.name} is of no cloud that runs",
            f"`moln doctor --fix` removes it, or: ip link delete {bridge.name}",
            _unbridging(bridge),
        )


async def of_tables(net: Path = NET) -> list[Finding]:
    """Address translation for bridges that are gone."""
    try:
        listed = await run_program(["nft", "list", "tables", "ip"])
    except CommandError:
        return []  # no nftables, or not root: then there is nothing of ours, or nothing to be seen
    names = [line.split()[-1] for line in listed.text.splitlines() if line.startswith("table ip moln-")]
    gone = [name for name in names if not (net / name.removeprefix("moln-")).exists()]
    return [
        Finding(
            f"the nftables table {name} is of a bridge that is gone", f"nft delete table ip {name}", _untabling(name)
        )
        for name in gone
    ]


def marked_bridges(net: Path = NET) -> list[Bridge]:
    """The bridges of this machine that carry moln's mark."""
    found = []
    for entry in sorted(net.iterdir()) if net.is_dir() else []:
        if not (entry / "bridge").is_dir():
            continue
        alias = (entry / "ifalias").read_text().strip() if (entry / "ifalias").exists() else ""
        if alias.startswith(MARK):
            ports = entry / "brif"
            found.append(Bridge(entry.name, alias.removeprefix(MARK), ports.is_dir() and any(ports.iterdir())))
    return found


def mounts_under(folder: Path) -> list[str]:
    """Places within the folder where something is mounted, the innermost first."""
    try:
        lines = MOUNTS.read_text().splitlines()
    except OSError:
        return []
    places = [line.split()[4].replace("\\040", " ") for line in lines]
    return sorted((place for place in places if place.startswith(f"{folder}/")), key=len, reverse=True)


def _ending(folder: Folder, kind: str) -> Callable[[], Awaitable[None]]:
    return lambda: repairs.end_processes(folder, kind)


def _unmounting(place: str) -> Callable[[], Awaitable[None]]:
    return lambda: repairs.unmount(place)


def _removing(path: Path) -> Callable[[], Awaitable[None]]:
    return lambda: repairs.remove_file(path)


def _untabling(name: str) -> Callable[[], Awaitable[None]]:
    return lambda: repairs.remove_table(name)


def _unbridging(bridge: Bridge) -> Callable[[], Awaitable[None]]:
    return lambda: repairs.remove_bridge(bridge.name, f"{MARK}{bridge.network_uid}")
