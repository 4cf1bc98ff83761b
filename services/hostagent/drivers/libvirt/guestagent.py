"""The agent inside a guest: JSON commands by way of the hypervisor, each within bounds. Must not decide who may ask.

What an agent answers is a guest's word: read with care, never believed to be of a certain form.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import ipaddress
import json
from collections.abc import Mapping
from typing import Any

from moln.node.v1.node_service_pb2 import AgentAnswer, AgentCommand, AgentExec
from services.common.domain.reasons import Reason
from services.common.runtime import Background
from services.hostagent.drivers.libvirt.connection import (
    GuestMissing,
    HypervisorError,
    LibvirtConnection,
    Raw,
    WrongState,
    agent_command,
)
from services.hostagent.drivers.libvirt.screen import NOT_RUNNING

ANSWER_SECONDS = 5
FREEZE_ANSWER_SECONDS = 12
MAX_ADDRESSES = 16
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0


class GuestAgents:
    """Speaks with the agents of all guests of one hypervisor. `background` runs the thaws that come by themselves."""

    def __init__(self, connection: LibvirtConnection, background: Background) -> None:
        self._connection, self._background = connection, background

    async def ask(self, uid: str, command: AgentCommand) -> AgentAnswer:
        """The answer. Raises AGENT_SILENT, EXEC_REFUSED, EXEC_UNFINISHED, STATE_FORBIDS."""
        match command.WhichOneof("kind"):
            case "ping":
                await self._call(uid, "guest-ping")
                return AgentAnswer()
            case "freeze":
                return await self._freeze(uid, command.freeze.seconds)
            case "thaw":
                return AgentAnswer(filesystems=_count(await self._call(uid, "guest-fsfreeze-thaw")))
            case "exec":
                return await self._exec(uid, command.exec)
            case _:
                raise HypervisorError(Reason.CAPABILITY, "this agent does not know that command; update it")

    async def addresses(self, uid: str) -> tuple[str, ...]:
        """Addresses of the guest's interfaces, loopback and link-local ones left out. Raises as `ask`."""
        found = await self._call(uid, "guest-network-get-interfaces")
        interfaces = found if isinstance(found, list) else []
        texts = [
            str(each.get("ip-address", ""))
            for interface in interfaces
            if isinstance(interface, dict) and isinstance(interface.get("ip-addresses"), list)
            for each in interface["ip-addresses"]
            if isinstance(each, dict)
        ]
        return tuple(dict.fromkeys(filter(None, map(_address, texts))))[:MAX_ADDRESSES]

    async def _freeze(self, uid: str, seconds: int) -> AgentAnswer:
        """The thaw is arranged before the freeze: whatever happens to the answer, writes go on."""
        self._background.start(self._thaw_after(uid, seconds), name=f"thaw {uid}")
        status = await self._call(uid, "guest-fsfreeze-status")
        if status == "frozen":
            return AgentAnswer()
        frozen = await self._call(uid, "guest-fsfreeze-freeze", seconds=FREEZE_ANSWER_SECONDS)
        return AgentAnswer(filesystems=_count(frozen))

    async def _thaw_after(self, uid: str, seconds: int) -> None:
        await asyncio.sleep(seconds)
        try:
            await self._call(uid, "guest-fsfreeze-thaw")
        except HypervisorError:
            return  # it was thawed, or is gone

    async def _exec(self, uid: str, command: AgentExec) -> AgentAnswer:
        clock = asyncio.get_running_loop()
        end = clock.time() + command.seconds
        started = await self._call(uid, "guest-exec", _exec_arguments(command))
        pid = started.get("pid") if isinstance(started, dict) else None
        pause = _FIRST_PAUSE_S
        while clock.time() < end:
            found = await self._call(uid, "guest-exec-status", {"pid": pid})
            if isinstance(found, dict) and found.get("exited"):
                return _result(found, command.max_bytes)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
        message = f"{command.words[0]} did not end within {command.seconds} s; it goes on in the guest as process {pid}"
        raise HypervisorError(Reason.EXEC_UNFINISHED, message)

    async def _call(
        self, uid: str, name: str, arguments: Mapping[str, object] | None = None, *, seconds: int = ANSWER_SECONDS
    ) -> Any:
        """What is under `return` in the agent's answer."""
        text = json.dumps({"execute": name, **({"arguments": dict(arguments)} if arguments else {})})

        def work(raw: Raw) -> str:
            return agent_command(raw.lookupByUUIDString(uid), text, seconds)

        try:
            answer = await self._connection.call(work, what="asking the guest's agent", seconds=2.0 * seconds)
        except (GuestMissing, WrongState) as err:
            raise HypervisorError(Reason.STATE_FORBIDS, NOT_RUNNING) from err
        try:
            found = json.loads(answer)
        except ValueError as err:
            raise HypervisorError(Reason.AGENT_SILENT, "the guest's agent answers what is no JSON") from err
        return found.get("return") if isinstance(found, dict) else None


def _exec_arguments(command: AgentExec) -> dict[str, object]:
    arguments: dict[str, object] = {
        "path": command.words[0], "arg": list(command.words[1:]), "capture-output": True,
    }  # fmt: skip
    if command.input:
        arguments["input-data"] = base64.b64encode(command.input).decode()
    return arguments


def _result(found: Mapping[str, Any], most: int) -> AgentAnswer:
    output, error_output = _bytes(found.get("out-data")), _bytes(found.get("err-data"))
    is_cut = bool(found.get("out-truncated") or found.get("err-truncated"))
    code = found.get("exitcode")
    return AgentAnswer(
        exit_code=code if isinstance(code, int) and -(2**31) <= code < 2**31 else -1,
        output=output[:most],
        error_output=error_output[:most],
        is_truncated=is_cut or len(output) > most or len(error_output) > most,
    )


def _bytes(text: object) -> bytes:
    try:
        return base64.b64decode(text) if isinstance(text, str) else b""
    except binascii.Error:
        return b""


def _count(found: object) -> int:
    return min(found, 2**31) if isinstance(found, int) and found > 0 else 0


def _address(text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ""
    return "" if address.is_loopback or address.is_link_local or address.is_multicast else str(address)
