"""What `moln doctor --fix` does. Each repair is safe to repeat, and touches only what carries moln's mark or folder."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from services.common import stacks
from services.common.exec import CommandError, run_program
from services.common.stacks import StackRecord
from services.devstack import cleanup
from services.devstack.errors import StackError
from services.devstack.layout import Folder

_FAMILY = "ip"


async def correct_record(record: StackRecord) -> None:
    """The record says again that the stack does not run."""
    stacks.save(replace(record, pid=0, start_ticks=0, is_ready=False), os.environ)


async def end_processes(folder: Folder, kind: str) -> None:
    """Ends what works for a stack that does not run."""
    await cleanup.clean(folder, (kind,))
    left = [item for item in cleanup.leftovers(folder) if item.kind == kind]
    if left:
        raise StackError(f"process {left[0].pid} ({left[0].title}) does not end: be root")


async def unmount(place: str) -> None:
    """Unmounts it."""
    await _as_root("umount", place)


async def remove_file(path: Path) -> None:
    """Removes an entry of the list of stacks."""
    path.unlink(missing_ok=True)


async def remove_bridge(name: str, mark: str) -> None:
    """Removes the bridge, and the rules that the agent made for it."""
    await _as_root("ip", "link", "delete", name)
    await run_program(["nft", "delete", "table", _FAMILY, f"moln-{name}"], check=False)
    listed = await run_program(["iptables", "-S", "FORWARD"], check=False)
    for line in listed.text.splitlines():
        words = line.replace('"', "").split()
        if mark in words:
            await run_program(["iptables", "-D", *words[1:]], check=False)


async def remove_table(name: str) -> None:
    """Removes an nftables table."""
    await _as_root("nft", "delete", "table", _FAMILY, name)


async def _as_root(*words: str) -> None:
    command = list(words) if os.geteuid() == 0 else ["sudo", "-n", *words]
    try:
        await run_program(command)
    except CommandError as err:
        raise StackError(f"{err}: be root, or run `sudo {' '.join(words)}`") from err
