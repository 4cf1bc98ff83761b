"""Looking into a guest: in which states each way is allowed, and what is sent to its agent. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from moln.compute.v1 import vm_pb2, vm_service_pb2
from moln.node.v1.node_service_pb2 import AgentExec
from services.api.core.verbs import state_name
from services.common.domain.errors import MolnError, invalid
from services.common.domain.reasons import Reason

MAX_SECONDS = 600
FREEZE_SECONDS = 60
EXEC_SECONDS = 30
EXEC_BYTES, MAX_EXEC_BYTES = 64 << 10, 1 << 20
MAX_INPUT_BYTES = 64 << 10
MAX_COMMAND_BYTES = 32 << 10


class Look(StrEnum):
    """A way of looking into a guest, in the words of the command line."""

    VNC = "vnc"
    SCREENSHOT = "screenshot"
    PING = "ping"
    FREEZE = "freeze"
    THAW = "thaw"
    EXEC = "exec"


_LIVE = frozenset({vm_pb2.VM_STATE_STARTING, vm_pb2.VM_STATE_RUNNING, vm_pb2.VM_STATE_POWERING_OFF})
_RUNNING = frozenset({vm_pb2.VM_STATE_RUNNING})
ALLOWED: Mapping[Look, frozenset[int]] = {
    Look.VNC: _LIVE,
    Look.SCREENSHOT: _LIVE,
    Look.PING: _RUNNING,
    Look.FREEZE: _RUNNING,
    Look.THAW: _RUNNING,
    Look.EXEC: _RUNNING,
}


def check_look(look: Look, state: int, vm_name: str) -> None:
    """Raises STATE_FORBIDS, naming the states in which it is allowed."""
    if state not in ALLOWED[look]:
        allowed = ", ".join(sorted(state_name(each) for each in ALLOWED[look]))
        raise MolnError(
            Reason.STATE_FORBIDS,
            f"{look} VM {vm_name}: it is {state_name(state)}; {look} is allowed in {allowed}",
            metadata={"state": state_name(state), "allowed": allowed},
        )


def freeze_seconds(request: vm_service_pb2.FreezeVmFilesystemsRequest) -> int:
    """How long writes are held at most. Raises INVALID."""
    return _seconds(request, request.timeout, FREEZE_SECONDS)


def exec_command(request: vm_service_pb2.ExecVmRequest) -> AgentExec:
    """The command for the agent, with defaults filled in. Raises INVALID, naming the field."""
    if not request.command or not request.command[0]:
        raise invalid("command", "is required: the program and its arguments", reason=Reason.FIELD_REQUIRED)
    if sum(len(word.encode()) for word in request.command) > MAX_COMMAND_BYTES:
        raise invalid("command", f"is longer than {MAX_COMMAND_BYTES} bytes: hand the rest over as input")
    if any("\0" in word for word in request.command):
        raise invalid("command", "holds a zero byte, which no argument can")
    if len(request.input) > MAX_INPUT_BYTES:
        raise invalid("input", f"has {len(request.input)} bytes; at most {MAX_INPUT_BYTES} are allowed")
    if request.max_bytes > MAX_EXEC_BYTES:
        raise invalid("max_bytes", f"must be at most {MAX_EXEC_BYTES}")
    seconds = _seconds(request, request.timeout, EXEC_SECONDS)
    most = request.max_bytes or EXEC_BYTES
    return AgentExec(words=request.command, input=request.input, seconds=seconds, max_bytes=most)


def _seconds(request: Message, timeout: Duration, default: int) -> int:
    if not request.HasField("timeout"):
        return default
    if not 1 <= timeout.seconds <= MAX_SECONDS or (timeout.seconds == MAX_SECONDS and timeout.nanos):
        raise invalid("timeout", f"takes from 1 to {MAX_SECONDS} s")
    return timeout.seconds
