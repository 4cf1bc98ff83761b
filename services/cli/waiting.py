"""Waits until VMs are in a state. Says in the end which of them are not, and why."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

import click
from google.protobuf.duration_pb2 import Duration

from moln.compute.v1.vm_pb2 import Vm, VmState
from moln.compute.v1.vm_service_pb2 import WaitVmRequest, WatchVmsRequest, WatchVmsResponse
from services.cli.client import Client
from services.cli.exits import CliError, Exit
from services.cli.resources.vms import VMS, state_of, why
from services.cli.session import is_terminal

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

GRACE_SECONDS = 10.0
OUTAGE_SECONDS = 20.0
PAUSE_SECONDS = 0.5


def wait_for_one(client: Client, vm: Vm, state: VmState, seconds: float) -> Vm:
    """Waits for one VM; outlasts a short absence of the cloud. Raises CliError with the VM's own reason."""
    deadline = time.monotonic() + seconds
    unheard_since: float | None = None
    while True:
        left = max(deadline - time.monotonic(), 0.001)
        request = WaitVmRequest(id=vm.id, state=state, timeout=_duration(left))
        try:
            with _spinner(f"waiting for {VMS.title(vm)} to be {VmState.Name(state).removeprefix('VM_STATE_')}"):
                after = client.unary(VMS.path("WaitVm"), request, Vm, seconds=left + GRACE_SECONDS)
                return after if after.HasField("spec") else vm
        except CliError as err:
            if state == VmState.VM_STATE_DONE and err.code is Exit.NOT_FOUND:
                return vm
            now = time.monotonic()
            unheard_since = unheard_since or now
            if err.code is not Exit.UNREACHABLE or now > min(deadline, unheard_since + OUTAGE_SECONDS):
                raise
            time.sleep(PAUSE_SECONDS)


def wait_for_all(client: Client, vms: Sequence[Vm], state: VmState, seconds: float) -> list[Vm]:
    """Waits for many with one watch. Raises CliError naming those that did not get there."""
    if len(vms) == 1:
        return [wait_for_one(client, vms[0], state, seconds)]
    wait = _Wait({vm.id: vm for vm in vms}, state)
    deadline = time.monotonic() + seconds
    while not wait.is_over and time.monotonic() < deadline:
        request = WatchVmsRequest(from_revision=wait.revision)
        try:
            for answer in client.stream(
                VMS.path("WatchVms"), request, WatchVmsResponse, seconds=max(deadline - time.monotonic(), 0.001)
            ):
                wait.apply(answer)
                if wait.is_over:
                    break
        except CliError as err:
            if err.reason == "REVISION_GONE":
                wait.revision = 0
            elif err.code is not Exit.UNREACHABLE:
                raise
            else:
                time.sleep(min(PAUSE_SECONDS, max(deadline - time.monotonic(), 0)))
    wait.finish()
    return list(wait.vms.values())


class _Wait:
    """What is known of the VMs that are waited for."""

    def __init__(self, vms: dict[int, Vm], state: VmState) -> None:
        self.vms = vms
        self.revision = 0
        self._state = state
        self._missing = set(vms)
        self._gone: set[int] = set()
        self._seen: set[int] = set()

    @property
    def is_over(self) -> bool:
        """All are there, or gone."""
        return not self._missing

    def apply(self, answer: WatchVmsResponse) -> None:
        """Takes in one step of the watch."""
        for vm in answer.vms:
            if vm.id in self.vms:
                self._note(vm)
        if answer.is_synced and self.revision == 0:
            for number in set(self._missing) - self._seen:
                self._leave(number)
        self.revision = answer.revision
        self._say()

    def _note(self, vm: Vm) -> None:
        self._seen.add(vm.id)
        if not vm.HasField("spec"):
            self._leave(vm.id)
            return
        self.vms[vm.id] = vm
        if vm.view.state == self._state:
            self._missing.discard(vm.id)
        else:
            self._missing.add(vm.id)

    def _leave(self, number: int) -> None:
        self._gone.add(number)
        self._missing.discard(number)

    def _say(self) -> None:
        if is_terminal():
            done = len(self.vms) - len(self._missing)
            click.echo(f"\r{done} of {len(self.vms)} are {self._word}", nl=self.is_over, err=True)

    @property
    def _word(self) -> str:
        return VmState.Name(self._state).removeprefix("VM_STATE_")

    def finish(self) -> None:
        """Raises CliError unless all got there."""
        if self._missing:
            raise CliError(_not_reached([self.vms[number] for number in sorted(self._missing)], self._word, self.vms),
                           Exit.NOT_REACHED)  # fmt: skip
        if self._gone and self._state != VmState.VM_STATE_DONE:
            ids = ", ".join(map(str, sorted(self._gone)))
            raise CliError(f"of {len(self.vms)} VMs, these are gone before they were {self._word}: {ids}")


def _not_reached(missing: Sequence[Vm], word: str, vms: Mapping[int, Vm]) -> str:
    """One line for each kind of reason, with an example."""
    kinds: dict[str, list[Vm]] = {}
    for vm in missing:
        kinds.setdefault(f"{state_of(vm)} {why(vm)}".strip(), []).append(vm)
    lines = [f"  {len(group)} × {kind} (for example {VMS.title(group[0])})" for kind, group in kinds.items()]
    return "\n".join([f"{len(missing)} of {len(vms)} VMs were not {word} in time:", *lines])


def _duration(seconds: float) -> Duration:
    whole = int(seconds)
    return Duration(seconds=whole, nanos=int((seconds - whole) * 1e9))


def _spinner(text: str) -> AbstractContextManager[object]:
    """Shows on a terminal that something is waited for."""
    if not is_terminal():
        return nullcontext()
    from rich.console import Console

    return Console(stderr=True).status(text)
