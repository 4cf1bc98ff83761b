"""Who the hosts of this agent are: joined once with a token, kept in a file that only its owner can read.

The file is JSON: {"cloud_uid", "api": [addresses], "hosts": [{"host_id", "uid", "name", "secret"}]}. A host that is to
be joined has "name" and "join_token" instead; its token is exchanged at the next start.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from moln.node.v1.node_service_pb2 import JoinRequest, JoinResponse
from moln.node.v1.node_service_pb2_grpc import NodeServiceStub
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.rpc import decode_error
from services.common.runtime import SettingsError
from services.hostagent.drivers.ports import HostIdentity

JOIN_S = 60.0
JOINS_AT_ONCE = 50

Dial = Callable[[str], grpc.aio.Channel]


@dataclass
class Identity:
    """The hosts and their cloud."""

    cloud_uid: str
    addresses: list[str]
    hosts: dict[int, HostIdentity] = field(default_factory=dict)


async def find_identity(file: Path, join_token: str, addresses: Sequence[str], dial: Dial) -> Identity:
    """Reads the file; joins what is not joined yet, and writes it again. `addresses` go before those in the file.

    Raises SettingsError where there is nothing to go by, MolnError JOIN_TOKEN_INVALID for a token that is refused.
    """
    document = _read(file)
    if addresses:
        document["api"] = list(addresses)
    if join_token and document.get("joined_with") != _digest(join_token):
        document["hosts"] = [{"name": socket.gethostname(), "join_token": join_token}]
        document["joined_with"] = _digest(join_token)
    _check(file, document)
    await _join_all(file, document, dial)
    return _identity(document)


def _check(file: Path, document: dict[str, Any]) -> None:
    if not document["hosts"]:
        raise SettingsError(
            f"{file}: this node has not joined a cloud: run `moln host create NAME`, then the command that it prints"
        )
    if not document["api"]:
        raise SettingsError("api_addresses is not set: give --api HOST:2634, the address of the cloud's node gateway")


async def _join_all(file: Path, document: dict[str, Any], dial: Dial) -> None:
    """Joins what has no secret yet, some at a time; what has been joined is written before the next ones are."""
    address = document["api"][0]
    unjoined = [entry for entry in document["hosts"] if "secret" not in entry]
    async with dial(address) as channel:
        for start in range(0, len(unjoined), JOINS_AT_ONCE):
            batch = unjoined[start : start + JOINS_AT_ONCE]
            joins = [_exchange(entry, address, channel) for entry in batch]
            answers = await asyncio.gather(*joins, return_exceptions=True)
            for entry, answer in zip(batch, answers, strict=True):
                if isinstance(answer, JoinResponse):
                    entry.pop("join_token", None)
                    entry.update(host_id=answer.host_id, uid=answer.host_uid, name=answer.name, secret=answer.secret)
                    document["cloud_uid"] = answer.cloud_uid
            _write(file, document)
            for answer in answers:
                if isinstance(answer, BaseException):
                    raise answer
    _write(file, document)


async def _exchange(entry: dict[str, Any], address: str, channel: grpc.aio.Channel) -> JoinResponse:
    request = JoinRequest(join_token=str(entry.get("join_token", "")), hostname=str(entry.get("name", "")))
    try:
        answer: JoinResponse = await NodeServiceStub(channel).Join(request, timeout=JOIN_S, wait_for_ready=True)
    except grpc.aio.AioRpcError as err:
        remote = decode_error(err)
        if remote.reason == Reason.JOIN_TOKEN_INVALID:
            raise MolnError(Reason.JOIN_TOKEN_INVALID, remote.message) from err
        text = f"cannot join by {address}: {remote.message}; check the address and that the api runs"
        raise MolnError(Reason.SERVICE_UNAVAILABLE, text) from err
    return answer


def _read(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text())
    except FileNotFoundError:
        return {"cloud_uid": "", "api": [], "hosts": []}
    except (OSError, ValueError) as err:
        raise SettingsError(f"{file}: cannot be read as JSON: {err}") from err
    return {"cloud_uid": "", "api": [], "hosts": [], **document}


def _write(file: Path, document: dict[str, Any]) -> None:
    """Replaces the file in one step, readable by its owner alone."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        json.dump(document, out, indent=1)
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(file)


def _identity(document: dict[str, Any]) -> Identity:
    hosts = [
        HostIdentity(int(entry["host_id"]), str(entry["uid"]), str(entry["name"]), str(entry["secret"]))
        for entry in document["hosts"]
    ]
    return Identity(str(document["cloud_uid"]), list(document["api"]), {host.host_id: host for host in hosts})


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
