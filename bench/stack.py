"""A stack of its own for a benchmark, started and ended as a user does, and clients to load it with."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from moln.compute.v1 import host_service_pb2_grpc, vm_service_pb2_grpc
from moln.iam.v1 import user_service_pb2_grpc
from moln.operations.v1 import operations_service_pb2, operations_service_pb2_grpc
from services.common import stacks

MOLN = Path(sys.executable).parent / "moln"
_RECEIVE = [("grpc.max_receive_message_length", 512 << 20), ("grpc.use_local_subchannel_pool", 1)]


@dataclass(frozen=True)
class Bench:
    """A running stack."""

    folder: Path
    endpoint: str
    token: str

    @property
    def metadata(self) -> list[tuple[str, str]]:
        """What every call carries."""
        return [("authorization", f"Bearer {self.token}")]

    def channel(self) -> grpc.aio.Channel:
        """A connection of its own."""
        return grpc.aio.insecure_channel(self.endpoint, options=_RECEIVE)

    def cpu_seconds(self) -> dict[str, float]:
        """CPU time of each process of the stack so far, by its name."""
        return {name: _cpu(pid) for name, pid in self._processes().items()}

    def _processes(self) -> dict[str, int]:
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                arguments = (entry / "cmdline").read_text().split("\0")
            except OSError:
                continue
            if str(self.folder) in " ".join(arguments):
                found[_name(arguments)] = int(entry.name)
        found.pop("", None)
        return found


def _name(arguments: list[str]) -> str:
    if arguments[0].endswith("etcd"):
        return "etcd"
    if "-m" in arguments:
        module = arguments[arguments.index("-m") + 1]
        return module.removeprefix("services.") if module.startswith("services.") else ""
    return ""


def _cpu(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def stack(sim_hosts: int) -> AsyncIterator[Bench]:
    """A stack with simulated hosts only, as shipped: authentication and checks on. Gone afterwards."""
    async with AsyncExitStack() as ends:
        parent = ends.enter_context(tempfile.TemporaryDirectory(prefix="moln-bench-"))
        folder = Path(parent) / "s"
        await _moln("dev", "up", "--detach", "--state", str(folder), "--sim-hosts", str(sim_hosts), "--no-real-host")
        ends.push_async_callback(_moln, "dev", "down", "--state", str(folder), "--purge")
        record = stacks.in_folder(folder)
        if record is None:
            raise SystemExit(f"bench: the stack in {folder} says that it is up, but has left no record")
        yield Bench(folder, record.endpoint, Path(record.token_file).read_text().strip())


async def _moln(*arguments: str) -> None:
    done = await asyncio.to_thread(
        subprocess.run, [str(MOLN), *arguments], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode != 0:
        raise SystemExit(f"bench: moln {' '.join(arguments)} failed: {done.stdout}{done.stderr}")


async def running(operations: operations_service_pb2_grpc.OperationsServiceStub, bench: Bench) -> int:
    """VMs that run now."""
    status = await operations.GetStatus(operations_service_pb2.GetStatusRequest(), metadata=bench.metadata)
    return int(status.vms.get("RUNNING", 0))


HostStub = host_service_pb2_grpc.HostServiceStub
VmStub = vm_service_pb2_grpc.VmServiceStub
UserStub = user_service_pb2_grpc.UserServiceStub
OperationsStub = operations_service_pb2_grpc.OperationsServiceStub
