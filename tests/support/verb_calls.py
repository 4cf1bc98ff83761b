"""Every verb of the table as one call of the API with something sensible to say, and what it is to have changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from moln.compute.v1 import vm_pb2, vm_service_pb2_grpc
from moln.compute.v1 import vm_service_pb2 as pb
from moln.compute.v1.template_pb2 import Context, DiskTemplate, NicTemplate
from services.api.core.verbs import VERBS, Verb
from services.cli.resources.vms import disk_snapshots_of
from services.cli.rpc_errors import Failure, decode
from tests.support.stack import Stack

CALL_SECONDS = 20.0
WAIT_SECONDS = 60
BEFORE = "before"
"""The snapshot that a VM has to have for the verbs about one."""

_WORDS: Mapping[Verb, Mapping[str, Any]] = {
    Verb.POWEROFF: {"is_hard": True},
    Verb.REBOOT: {"is_hard": True},
    Verb.UNDEPLOY: {"is_hard": True},
    Verb.TERMINATE: {"is_hard": True},
    Verb.RECOVER: {"action": pb.RECOVER_ACTION_RETRY},
    Verb.ATTACH_DISK: {"disk": DiskTemplate(size_mib=16)},
    Verb.DETACH_DISK: {"disk_id": 1},
    Verb.ATTACH_NIC: {"nic": NicTemplate(network="default")},
    Verb.DETACH_NIC: {"nic_id": 0},
    Verb.RESIZE: {"size": vm_pb2.VmSize(memory_mib=48)},
    Verb.RESIZE_DISK: {"disk_id": 0, "size_mib": 32},
    Verb.CREATE_SNAPSHOT: {"name": "after"},
    Verb.REVERT_SNAPSHOT: {"name": BEFORE},
    Verb.DELETE_SNAPSHOT: {"name": BEFORE},
    Verb.CREATE_DISK_SNAPSHOT: {"disk_id": 1, "name": "after"},
    Verb.REVERT_DISK_SNAPSHOT: {"disk_id": 1, "name": BEFORE},
    Verb.DELETE_DISK_SNAPSHOT: {"disk_id": 1, "name": BEFORE},
    Verb.SAVE_DISK: {"disk_id": 0},
    Verb.CONTEXT: {"context": Context(variables={"COLOUR": "green"})},
}


class VerbCalls:
    """Asks for verbs, and waits for what they reach. Waits come back as futures, so that many pass at once."""

    def __init__(self, stack: Stack) -> None:
        self._metadata = stack.metadata
        self._channel = stack.channel()
        channel: Any = self._channel
        self.stub: Any = vm_service_pb2_grpc.VmServiceStub(channel)

    def close(self) -> None:
        """Ends the connection."""
        self._channel.close()

    def call(self, method: str, request: Message) -> Any:
        """One call. Raises grpc.RpcError."""
        return getattr(self.stub, method)(request, metadata=self._metadata, timeout=CALL_SECONDS)

    def ask(self, verb: Verb, vm_id: int, host_id: int) -> vm_pb2.Vm | Failure:
        """The VM after the verb was asked of it, or why it was refused. `host_id` is where a deploy would place it."""
        row = VERBS[verb]
        try:
            if verb is Verb.CONSOLE:
                return self._greeted(vm_id)
            words = dict(_WORDS.get(verb, {}))
            if verb is Verb.DEPLOY:
                words["host_id"] = host_id
            if verb is Verb.SAVE_DISK:
                words["image_name"] = f"saved-{vm_id}"
            request = getattr(pb, f"{row.rpc}Request")(id=vm_id, **words)
            return self.call(row.rpc, request)  # type: ignore[no-any-return]
        except grpc.RpcError as err:
            return decode(err)

    def _greeted(self, vm_id: int) -> vm_pb2.Vm:
        """Opens the console, and closes it when it has said something."""

        def typed() -> Iterator[pb.ConsoleVmRequest]:
            yield pb.ConsoleVmRequest(id=vm_id, data=b"hello\n")

        stream = self.stub.ConsoleVm(typed(), metadata=self._metadata, timeout=CALL_SECONDS)
        try:
            assert next(iter(stream)).data, "a console that says nothing"
        finally:
            stream.cancel()
        return self.get(vm_id)

    def get(self, vm_id: int) -> vm_pb2.Vm:
        """The VM as it is."""
        return self.call("GetVm", pb.GetVmRequest(id=vm_id))  # type: ignore[no-any-return]

    def reaches(self, vm_id: int, state: vm_pb2.VmState) -> Any:
        """Waits for a state."""
        request = pb.WaitVmRequest(id=vm_id, state=state, timeout=Duration(seconds=WAIT_SECONDS))
        return self.stub.WaitVm.future(request, metadata=self._metadata, timeout=WAIT_SECONDS + CALL_SECONDS)

    def ends(self, vm: vm_pb2.Vm) -> Any:
        """Waits for the operation that the VM has in flight; None where it has none."""
        operation_id = vm.intent.operation.id or vm.intent.background.id
        if not operation_id:
            return None
        timeout = Duration(seconds=WAIT_SECONDS)
        request = pb.WaitVmOperationRequest(id=vm.id, operation_id=operation_id, timeout=timeout)
        return self.stub.WaitVmOperation.future(request, metadata=self._metadata, timeout=WAIT_SECONDS + CALL_SECONDS)


def snapshots(vm: vm_pb2.Vm) -> list[tuple[str, bool]]:
    """(name, whether it is where the VM is) of those that its host tells of."""
    here = [status for status in vm.statuses if status.host_id == vm.placement.host_id]
    return [(each.name, each.is_current) for status in here for each in status.snapshots]


def disk_snapshots(vm: vm_pb2.Vm) -> list[tuple[int, str]]:
    """(disk, name) of those of single disks."""
    return [(each.disk_id, each.name) for each in disk_snapshots_of(vm)]


EFFECTS: Mapping[Verb, Callable[[vm_pb2.Vm, vm_pb2.Vm], bool]] = {
    Verb.MIGRATE: lambda before, after: after.placement.host_id not in (0, before.placement.host_id),
    Verb.RESCHED: lambda before, after: after.placement.host_id not in (0, before.placement.host_id),
    Verb.ATTACH_DISK: lambda _, after: [disk.disk_id for disk in after.spec.template.disks] == [0, 1, 2],
    Verb.DETACH_DISK: lambda _, after: [disk.disk_id for disk in after.spec.template.disks] == [0],
    Verb.ATTACH_NIC: lambda _, after: [nic.nic_id for nic in after.spec.template.nics] == [0, 1],
    Verb.DETACH_NIC: lambda _, after: not after.spec.template.nics,
    Verb.RESIZE: lambda _, after: after.spec.template.memory_mib == 48,
    Verb.RESIZE_DISK: lambda _, after: after.spec.template.disks[0].size_mib == 32,
    Verb.CREATE_SNAPSHOT: lambda _, after: snapshots(after) == [(BEFORE, False), ("after", True)],
    Verb.REVERT_SNAPSHOT: lambda _, after: snapshots(after) == [(BEFORE, True)],
    Verb.DELETE_SNAPSHOT: lambda _, after: snapshots(after) == [],
    Verb.CREATE_DISK_SNAPSHOT: lambda _, after: disk_snapshots(after) == [(1, BEFORE), (1, "after")],
    Verb.REVERT_DISK_SNAPSHOT: lambda _, after: disk_snapshots(after) == [(1, BEFORE)],
    Verb.DELETE_DISK_SNAPSHOT: lambda _, after: disk_snapshots(after) == [],
    Verb.CONTEXT: lambda _, after: after.spec.template.context.variables["COLOUR"] == "green",
}
"""What a verb has changed beside the state."""
