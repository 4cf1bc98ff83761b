"""One run of a stack, from nothing to a cloud that can be used, and back. Holds the folder's lock all the while."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import os
import re
import signal
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import grpc

from services.common import stacks
from services.common.rpc import decode_error, make_service_secret
from services.common.stacks import DEFAULT_FOLDER, StackRecord, process_start_ticks
from services.devstack import bootstrap, cleanup
from services.devstack.children import ChildPlan
from services.devstack.errors import REFUSED, StackError
from services.devstack.layout import Folder, Memory, load_memory, save_memory
from services.devstack.libvirtd import LibvirtdFolder
from services.devstack.networks import choose_network, reserve
from services.devstack.nodes import NodePlan, look, real_plan, sim_plan, sudo_words
from services.devstack.plans import SERVICES, Value, agent_plan, etcd_plan, libvirtd_plan, root_plan, service_plan
from services.devstack.ports import address, choose
from services.devstack.prometheus import prometheus_plan
from services.devstack.reservations import Reservations
from services.devstack.rooted import write_plans
from services.devstack.supervisor import Supervisor

IMPATIENT_SECONDS = 2.0
WARNING_CHARACTERS = 160
RIVAL_TICKS = 3 * os.sysconf("SC_CLK_TCK")
"""Two that were started within this time may be after the same lock."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Wishes:
    """What the user asked for."""

    sim_hosts: int = 0
    keep_guests: bool = False
    has_real_host: bool | None = None
    """None: as in the last run; a new cloud has one."""
    name: str = ""
    has_monitoring: bool = False
    """A Prometheus is started with the stack."""


@contextlib.contextmanager
def held(folder: Folder) -> Iterator[None]:
    """Holds the folder for one supervisor. Raises StackError where another has it."""
    with folder.lock.open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            record = stacks.in_folder(folder.path)
            who = f" (process {record.pid}, at {record.endpoint})" if record else ""
            remedy = "`moln status` shows it, `moln dev down` ends it; another cloud needs another folder: --state"
            raise StackError(f"the cloud in {folder.path} runs already{who}: {remedy}", REFUSED) from err
        yield


def is_held(folder: Folder) -> bool:
    """Whether a supervisor has the folder."""
    try:
        with folder.lock.open("a+") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


async def run_stack(folder: Folder, wishes: Wishes, say: Say) -> None:
    """Starts everything, waits until it is told to end, and ends everything. Raises StackError with one clear line."""
    folder.make()
    with held(folder), Reservations() as reserved:
        # A supervisor that does not hold the lock has lost its folder, unless it is one that is just being refused.
        before_us = process_start_ticks(os.getpid()) - RIVAL_TICKS
        for line in await cleanup.clean(folder, ("supervisor", "service"), older_than=before_us):
            say(f"left over by a run that was killed: {line}")
        memory = _remember(folder, wishes, reserved)
        save_memory(folder, memory)
        stack = _Stack(folder, memory, wishes, say)
        stack.announce(is_ready=False)
        try:
            await stack.run()
        finally:
            stacks.save(replace(stack.record, pid=0, start_ticks=0, is_ready=False), os.environ)


class _Stack:
    """What one run holds together."""

    def __init__(self, folder: Folder, memory: Memory, wishes: Wishes, say: Say) -> None:
        self._folder = folder
        self._memory = memory
        self._wishes = wishes
        self._say = say
        self._ports = memory.ports or {}
        self._real = self._real_node() if memory.has_real_host else None
        pid = os.getpid()
        self.record = StackRecord(
            name=memory.name, state_dir=str(folder.path), endpoint=address(self._ports["api"]),
            token_file=str(folder.token_file), pid=pid, start_ticks=process_start_ticks(pid),
            start_time=datetime.now(UTC).isoformat(timespec="seconds"),
        )  # fmt: skip

    def _real_node(self) -> NodePlan:
        """The best real node that this machine allows."""
        return real_plan(look(), LibvirtdFolder(self._folder.state_of("libvirt")).uri)

    def announce(self, *, is_ready: bool) -> None:
        """Lets the clients on this machine know."""
        self.record = replace(self.record, is_ready=is_ready)
        stacks.save(self.record, os.environ)

    async def run(self) -> None:
        """Up, wait, down."""
        async with Supervisor(self._folder, self._say) as supervisor:
            with _signals(supervisor.kill) as asked:
                try:
                    await self._start(supervisor)
                    self.announce(is_ready=True)
                    self._greet()
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    if not asked():
                        raise
                self.announce(is_ready=False)
                self._say("ending: guests stay as they are" if self._wishes.keep_guests else "ending: guests power off")
                await supervisor.stop()
        self._say("the cloud has ended; the next `moln dev up` finds it as it was")

    async def _start(self, supervisor: Supervisor) -> None:
        began = time.monotonic()
        make_service_secret(self._folder.secret_file)
        await supervisor.start([etcd_plan(self._folder)])
        self._say("etcd is ready")
        await supervisor.start([service_plan(self._folder, name, self._ports) for name in SERVICES])
        self._say(f"{', '.join(SERVICES)} are ready")
        try:
            await self._furnish(supervisor)
        except grpc.aio.AioRpcError as err:
            raise StackError(f"the cloud could not be furnished: {decode_error(err).message}") from err
        self._say(f"everything is up after {time.monotonic() - began:.1f} s")

    async def _furnish(self, supervisor: Supervisor) -> None:
        """Defaults, hosts, agents."""
        nodes = self._nodes()
        api = bootstrap.dial(self.record.endpoint, self._folder.token_file)
        async with api.channel:
            await bootstrap.make_defaults(api, self._folder.datastore, self._memory.network, has_nat=True)
            for node in nodes:
                file = self._folder.state_of(node.name) / "host.json"
                await bootstrap.write_identities(api, file, node.hosts, address(self._ports["nodes"]))
                await self._start_node(supervisor, node)
            hosts = await bootstrap.wait_until_up(api, [name for node in nodes for name in node.hosts])
            await bootstrap.share_cpu(api, hosts)
        if self._wishes.has_monitoring:
            plan = prometheus_plan(self._folder, self._ports["prometheus"], self._ports["api-metrics"])
            await supervisor.start([plan])
            self._say(f"Prometheus scrapes everything: http://{address(self._ports['prometheus'])}")
        for node in nodes:
            self._say(f"{node.words}: up")
        for host in hosts:
            for warning in host.inventory.warnings:
                self._say(f"{host.spec.name}: {textwrap.shorten(warning, WARNING_CHARACTERS, placeholder=' …')}")

    def _nodes(self) -> list[NodePlan]:
        real = [self._real] if self._real else []
        return [*real, *([sim_plan(self._memory.sim_hosts)] if self._memory.sim_hosts else [])]

    async def _start_node(self, supervisor: Supervisor, node: NodePlan) -> None:
        """An agent, and what it needs before it; by sudo where root is needed."""
        stages = [[libvirtd_plan(self._folder)]] if node.has_own_libvirtd else []
        stages.append([self._agent(node)])
        if node.is_by_sudo:
            self._say("the real node's agent makes bridges and talks to libvirt: it alone is started by sudo")
            file = self._folder.config / "root.json"
            write_plans(file, stages)
            stages = [[root_plan(self._folder, file, sudo_words())]]
        for stage in stages:
            await supervisor.start(stage)

    def _agent(self, node: NodePlan) -> ChildPlan:
        settings: dict[str, Value] = {
            "on_stop": "keep" if self._wishes.keep_guests else "poweroff",
            "metrics_address": address(self._ports[f"{node.name}-metrics"]),
            "api_addresses": [address(self._ports["nodes"])],
            **node.settings,
        }
        return agent_plan(self._folder, node.name, settings)

    def _greet(self) -> None:
        self._say(f"the cloud {self.record.name} is up: gRPC at {self.record.endpoint}, state in {self._folder.path}")
        self._say("try `moln status`, `moln host list`; ^C or `moln dev down` ends it")


def _remember(folder: Folder, wishes: Wishes, reserved: Reservations) -> Memory:
    """What is kept from the last run, with what is new. Simulated hosts only grow: they are part of the cloud."""
    former = load_memory(folder)
    others = [record for record in stacks.known(os.environ) if record.state_dir != str(folder.path)]
    if former is None:
        taken = [memory.network for record in others if (memory := load_memory(Folder(Path(record.state_dir))))]
        name = _free_name(folder, {record.name for record in others})
        former = Memory(name, network=choose_network(taken, reserved))
    else:
        reserve(former.network, reserved)  # kept in any case: its guests have addresses of it
    return replace(
        former,
        name=wishes.name or former.name,
        sim_hosts=max(former.sim_hosts, wishes.sim_hosts),
        ports=choose(former.ports, reserved),
        has_real_host=former.has_real_host if wishes.has_real_host is None else wishes.has_real_host,
        keeps_guests=wishes.keep_guests,
    )


def _free_name(folder: Folder, taken: set[str]) -> str:
    """From the folder: `.moln` is called as what it is in."""
    base = folder.path.parent.name if folder.path.name == DEFAULT_FOLDER else folder.path.name
    base = re.sub(r"[^A-Za-z0-9._-]+", "-", base).strip(".-") or "moln"
    names = (base if number == 1 else f"{base}-{number}" for number in itertools.count(1))
    return next(name for name in names if name not in taken)


@contextlib.contextmanager
def _signals(kill: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """The first signal interrupts the task that runs here; one more, later, kills what does not end by itself.

    "Later", since one ^C can arrive as several signals.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    times: list[float] = []

    def received() -> None:
        times.append(loop.time())
        if len(times) == 1 and task is not None:
            task.cancel()
        elif times[-1] - times[0] > IMPATIENT_SECONDS:
            kill()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, received)
    try:
        yield lambda: bool(times) and task is not None and task.uncancel() == 0
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.remove_signal_handler(number)
