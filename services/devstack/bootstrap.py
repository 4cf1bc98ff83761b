"""Makes a cloud usable through its public API: hosts for the nodes, a default datastore, a default network.

Everything is done only where it is not done yet: a start after the first finds the cloud as it was.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.field_mask_pb2 import FieldMask

from moln.compute.v1.host_pb2 import Host, HostSpec, HostState
from moln.compute.v1.host_service_pb2 import (
    BatchCreateHostsRequest,
    CreateHostRequest,
    CreateJoinTokenRequest,
    ListHostsRequest,
    UpdateHostRequest,
)
from moln.compute.v1.host_service_pb2_grpc import HostServiceStub
from moln.image.v1.datastore_service_pb2 import CreateDatastoreRequest, ListDatastoresRequest
from moln.image.v1.datastore_service_pb2_grpc import DatastoreServiceStub
from moln.network.v1.network_pb2 import AddressRange, NetworkKind, NetworkSpec
from moln.network.v1.network_service_pb2 import CreateNetworkRequest, ListNetworksRequest
from moln.network.v1.network_service_pb2_grpc import NetworkServiceStub
from moln.operations.v1.operations_service_pb2 import CloudStatus, GetStatusRequest, UpdateCloudRequest
from moln.operations.v1.operations_service_pb2_grpc import OperationsServiceStub
from services.common.rpc import connect, decode_error
from services.devstack.errors import StackError

DEFAULT_NAME = "default"
CPU_OVERCOMMIT_PERCENT = 400
SIM = "sim"
BATCH = 500
LEADER_SECONDS = 30.0
HOST_SECONDS = 90.0
POLL_SECONDS = 0.1
DNS = ("9.9.9.9", "1.1.1.1")


@dataclass
class CloudApi:
    """The public API, as the administrator."""

    channel: grpc.aio.Channel

    async def status(self) -> CloudStatus:
        """The cloud as a whole."""
        answer: CloudStatus = await OperationsServiceStub(self.channel).GetStatus(GetStatusRequest())
        return answer

    async def hosts(self) -> list[Host]:
        """All hosts."""
        found: list[Host] = []
        token = ""
        while True:
            request = ListHostsRequest(page_size=1000, page_token=token)
            answer = await HostServiceStub(self.channel).ListHosts(request)
            found += answer.hosts
            token = answer.next_page_token
            if not token:
                return found


def dial(endpoint: str, token_file: Path) -> CloudApi:
    """Connects with the token in the file. Raises StackError where it cannot be read."""
    try:
        token = token_file.read_text().strip()
    except OSError as err:
        raise StackError(f"the administrator's token {token_file} cannot be read: {err.strerror or err}") from err
    return CloudApi(connect(endpoint, headers=lambda: (("authorization", f"Bearer {token}"),)))


async def make_defaults(api: CloudApi, datastore: Path, cidr: str, *, has_nat: bool) -> None:
    """The default datastore and network, where the cloud has none."""
    cloud = (await api.status()).cloud
    wanted = UpdateCloudRequest()
    if not cloud.default_datastore_id:
        wanted.default_datastore_id = await _until_led(lambda: _datastore(api, datastore))
    if not cloud.default_network_id:
        wanted.default_network_id = await _until_led(lambda: _network(api, cidr, has_nat))
    if wanted.ByteSize():
        await OperationsServiceStub(api.channel).UpdateCloud(wanted)


async def _datastore(api: CloudApi, path: Path) -> int:
    stub = DatastoreServiceStub(api.channel)
    for found in (await stub.ListDatastores(ListDatastoresRequest())).datastores:
        if found.spec.name == DEFAULT_NAME:
            return int(found.id)
    made = await stub.CreateDatastore(CreateDatastoreRequest(name=DEFAULT_NAME, kind="directory", path=str(path)))
    return int(made.id)


async def _network(api: CloudApi, cidr: str, has_nat: bool) -> int:
    stub = NetworkServiceStub(api.channel)
    for found in (await stub.ListNetworks(ListNetworksRequest(filter=f"name={DEFAULT_NAME}"))).networks:
        return int(found.id)
    made = await stub.CreateNetwork(CreateNetworkRequest(spec=network_spec(cidr, has_nat=has_nat)))
    return int(made.id)


def network_spec(cidr: str, *, has_nat: bool) -> NetworkSpec:
    """The default network: everyone may use it; the first address is the node's own."""
    network = ipaddress.IPv4Network(cidr)
    first = network.network_address + 2
    size = int(network.broadcast_address) - int(first)
    return NetworkSpec(
        name=DEFAULT_NAME, kind=NetworkKind.NETWORK_KIND_BRIDGE, cidr=cidr, gateway=str(network.network_address + 1),
        is_gateway_on_node=True, has_nat=has_nat, is_public=True, dns=DNS,
        ranges=[AddressRange(first_ipv4=str(first), size=size)],
    )  # fmt: skip


async def write_identities(api: CloudApi, file: Path, names: Sequence[str], node_address: str) -> None:
    """Writes the file of an agent's hosts: those that it has stay, the others are created and join with a token.

    A host that was deleted from the cloud is created anew: nobody would answer its agent.
    """
    try:
        document = _read(file)
    except PermissionError:
        # The agent runs as root and has made the file its own: it has joined, unless the host has never been heard.
        await _check_joined(api, file, names)
        return
    existing = {host.spec.name: host for host in await api.hosts()}
    ids = {host.id for host in existing.values()}
    entries = [entry for entry in document["hosts"] if "secret" in entry and entry["host_id"] in ids]
    known = {str(entry["name"]) for entry in entries}
    missing = [name for name in names if name not in known]
    for name, token in await _tokens(api, missing, existing):
        entries.append({"name": name, "join_token": token})
    document.update(hosts=entries, api=[node_address])
    _write(file, document)


async def _check_joined(api: CloudApi, file: Path, names: Sequence[str]) -> None:
    heard = {host.spec.name for host in await api.hosts() if host.view.state != HostState.HOST_STATE_NEW}
    missing = sorted(set(names) - heard)
    if missing:
        raise StackError(f"{file} is root's and does not make {missing[0]} join: sudo rm {file}, and it joins anew")


async def _tokens(api: CloudApi, names: Sequence[str], existing: Mapping[str, Host]) -> list[tuple[str, str]]:
    """A join token for each: of a new host, or a new one of a host that is there."""
    stub = HostServiceStub(api.channel)
    tokens: list[tuple[str, str]] = []
    fresh = [name for name in names if name not in existing]
    for start in range(0, len(fresh), BATCH):
        part = fresh[start : start + BATCH]
        request = BatchCreateHostsRequest(requests=[CreateHostRequest(name=name) for name in part])
        answer = await stub.BatchCreateHosts(request)
        tokens += [(name, made.join_token) for name, made in zip(part, answer.hosts, strict=True)]
    for name in names:
        if name in existing:
            made = await stub.CreateJoinToken(CreateJoinTokenRequest(id=existing[name].id))
            tokens.append((name, made.join_token))
    return tokens


async def share_cpu(api: CloudApi, hosts: Iterable[Host]) -> None:
    """Gives out the CPU of real nodes several times over, unless somebody has said otherwise.

    A development machine has few cores, and its guests wait more than they work.
    """
    stub = HostServiceStub(api.channel)
    for host in hosts:
        if host.inventory.driver != SIM and not host.spec.cpu_overcommit_percent:
            spec = HostSpec(cpu_overcommit_percent=CPU_OVERCOMMIT_PERCENT)
            mask = FieldMask(paths=["cpu_overcommit_percent"])
            await stub.UpdateHost(UpdateHostRequest(id=host.id, spec=spec, update_mask=mask))


async def wait_until_up(api: CloudApi, names: Iterable[str], seconds: float = HOST_SECONDS) -> list[Host]:
    """Waits until these hosts are heard. Raises StackError naming those that are not."""
    wanted = set(names)
    try:
        async with asyncio.timeout(seconds):
            while True:
                hosts = [host for host in await api.hosts() if host.spec.name in wanted]
                missing = wanted - {host.spec.name for host in hosts if _is_heard(host)}
                if not missing:
                    return hosts
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError as err:
        shown = ", ".join(sorted(missing)[:5])
        raise StackError(f"not heard within {seconds:g} s: {len(missing)} of {len(wanted)} hosts ({shown})") from err


def _is_heard(host: Host) -> bool:
    return host.view.state not in (HostState.HOST_STATE_NEW, HostState.HOST_STATE_SILENT, HostState.HOST_STATE_FENCED)


async def _until_led(act: Any) -> int:
    """Repeats what the leader of another service has to do until there is one."""
    try:
        async with asyncio.timeout(LEADER_SECONDS):
            while True:
                try:
                    return int(await act())
                except grpc.aio.AioRpcError as err:
                    remote = decode_error(err)
                    if remote.code is not grpc.StatusCode.UNAVAILABLE:
                        raise StackError(f"the cloud refuses its defaults: {remote.message}") from err
                    await asyncio.sleep(POLL_SECONDS)
    except TimeoutError as err:
        raise StackError(f"the cloud's services did not take their places within {LEADER_SECONDS:g} s") from err


def _read(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text())
    except FileNotFoundError:
        document = {}
    except ValueError as err:
        raise StackError(f"{file} cannot be read ({err}): remove it, and the node joins anew") from err
    return {"cloud_uid": "", "api": [], "hosts": [], **document}


def _write(file: Path, document: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = file.with_name(f".{file.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        json.dump(document, out, indent=1)
    fresh.replace(file)
