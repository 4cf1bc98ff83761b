"""What each process of a stack is started with: command, settings, log. Pure but for the files it writes."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from services.common.store import server
from services.devstack.children import Addresses, ChildPlan
from services.devstack.errors import StackError
from services.devstack.layout import Folder
from services.devstack.ports import address

ROOT_STOP_SECONDS = 90.0
SERVICES = ("api", "scheduler", "imagesvc", "netsvc")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
Value = str | int | float | bool | list[str]


def etcd_plan(folder: Folder) -> ChildPlan:
    """etcd, on sockets in its own folder. Raises StackError where it is not installed."""
    program = shutil.which("etcd", path=_PATH)
    if program is None:
        raise StackError("etcd is not installed: apt-get install etcd-server")
    # etcd ends with its parent: nothing else would tell it that the parent was killed.
    guard = shutil.which("setpriv", path=_PATH)
    guarded = (guard, "--pdeathsig", "SIGTERM", "--") if guard else ()
    return ChildPlan(
        name="etcd",
        command=(*guarded, *server.command(folder.etcd, program=program)),
        log=folder.log_of("etcd"),
        ready_file=folder.ready_of("etcd"),
        state_dir=folder.path,
        folder=folder.path / "etcd",
        prepare=lambda: server.clear_sockets(folder.etcd),
        probe=lambda: _etcd_answers(folder),
    )


def service_plan(folder: Folder, name: str, ports: Mapping[str, int]) -> ChildPlan:
    """One of the services that work on the store."""
    settings: dict[str, Value] = {
        "etcd_endpoints": [server.endpoint(folder.etcd)],
        "listen": address(ports[name]),
        "metrics_address": address(ports[f"{name}-metrics"]),
        "service_secret_file": str(folder.secret_file),
    }
    if name == "api":
        settings["node_listen"] = address(ports["nodes"])
        settings["state_dir"] = str(folder.state_of("api"))
    return _python_plan(folder, name, f"services.{name}", settings)


def agent_plan(folder: Folder, name: str, settings: Mapping[str, Value]) -> ChildPlan:
    """The agent of one or many hosts; its state is in the folder of that name."""
    return _python_plan(folder, name, "services.hostagent", {"state_dir": str(folder.state_of(name)), **settings})


def libvirtd_plan(folder: Folder) -> ChildPlan:
    """The stack's own libvirtd. Needs root."""
    return ChildPlan(
        name="libvirtd",
        command=(sys.executable, "-m", "services.devstack.libvirtd", "--state", str(folder.state_of("libvirt"))),
        log=folder.log_of("libvirtd"),
        ready_file=folder.ready_of("libvirtd"),
        state_dir=folder.path,
    )


def root_plan(folder: Folder, plans_file: Path, words: Sequence[str]) -> ChildPlan:
    """What runs other processes as root; `words` begin its command line."""
    return ChildPlan(
        name="root",
        command=(*words, "-m", "services.devstack.rooted", str(plans_file)),
        log=folder.log_of("root"),
        ready_file=folder.ready_of("root"),
        state_dir=folder.path,
        is_ended_by_input=True,
        stop_seconds=ROOT_STOP_SECONDS,
    )


def _python_plan(folder: Folder, name: str, module: str, settings: Mapping[str, Value]) -> ChildPlan:
    file = folder.config / f"{name}.toml"
    file.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))
    return ChildPlan(
        name=name,
        command=(sys.executable, "-m", module, "--config", str(file)),
        log=folder.log_of(name),
        ready_file=folder.ready_of(name),
        state_dir=folder.path,
    )


async def _etcd_answers(folder: Folder) -> Addresses | None:
    """Asks etcd by its HTTP door whether it is healthy."""
    socket = server.socket_path(folder.etcd)
    try:
        reader, writer = await asyncio.open_unix_connection(str(socket))
    except OSError:
        return None
    try:
        writer.write(b"GET /health HTTP/1.0\r\nHost: etcd\r\n\r\n")
        async with asyncio.timeout(2.0):
            answer = await reader.read()
    except (OSError, TimeoutError):
        return None
    finally:
        writer.close()
    return {"socket": str(socket)} if b'"true"' in answer else None


def path_of(name: str) -> Path | None:
    """Where a program of the system is, the administrator's folders included."""
    found = shutil.which(name, path=_PATH)
    return Path(found) if found else None
