"""`moln doctor`: says in one line each what is left over or wrong on this machine, and repairs what it can."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import grpc

from moln.network.v1.network_service_pb2 import ListNetworksRequest
from moln.network.v1.network_service_pb2_grpc import NetworkServiceStub
from services.common import stacks
from services.common.rpc import decode_error
from services.common.stacks import StackRecord
from services.devstack import bootstrap, findings
from services.devstack.control import describe
from services.devstack.errors import StackError
from services.devstack.findings import Finding
from services.devstack.layout import Folder

CLOUD_SECONDS = 10.0
Say = Callable[[str], None]


async def examine(folder: Folder | None, say: Say, *, fixes: bool) -> int:
    """Prints the findings and returns the exit code: 0 where all is well (again), 1 otherwise."""
    records = stacks.known(os.environ)
    if folder is not None:
        found = stacks.in_folder(folder.path)
        records = [found] if found else []
    all_findings, networks = await _of_stacks(records)
    if folder is None:
        all_findings += findings.of_registry()
        all_findings += findings.of_bridges(networks)
        all_findings += await findings.of_tables()
    left = [finding for finding in all_findings if not (fixes and await _repair(finding, say))]
    for finding in left:
        say(f"{finding.text}: {finding.remedy}" if finding.remedy else finding.text)
    if not all_findings:
        say("nothing is left over and nothing is wrong")
    return 1 if left else 0


async def _of_stacks(records: list[StackRecord]) -> tuple[list[Finding], list[str]]:
    """Findings of each stack, and the networks of those that run."""
    all_findings: list[Finding] = []
    networks: list[str] = []
    for record in records:
        if record.is_running():
            about, known = await _of_cloud(record)
            networks += known
            all_findings += about
        else:
            all_findings += findings.of_stack(record)
    return all_findings, networks


async def _of_cloud(record: StackRecord) -> tuple[list[Finding], list[str]]:
    """What a running cloud says of itself, and the processes that its supervisor misses."""
    found = [
        Finding(f"{process['name']} of the cloud {record.name} is not running", f"see {process['log']}")
        for process in describe(Folder(Path(record.state_dir)))[0]["processes"]
        if not process["is_running"]
    ]
    try:
        async with asyncio.timeout(CLOUD_SECONDS):
            api = bootstrap.dial(record.endpoint, Path(record.token_file))
            async with api.channel:
                status = await api.status()
                answer = await NetworkServiceStub(api.channel).ListNetworks(ListNetworksRequest(page_size=1000))
    except (grpc.aio.AioRpcError, TimeoutError, StackError) as err:
        words = decode_error(err).message if isinstance(err, grpc.RpcError) else str(err) or "no answer in time"
        return [*found, Finding(f"the cloud {record.name} does not answer ({words})", "`moln dev status`")], []
    found += [
        Finding(f"{problem.subject} of the cloud {record.name}: {problem.message} ({problem.reason})", problem.remedy)
        for problem in status.problems
    ]
    return found, [network.spec.uid for network in answer.networks]


async def _repair(finding: Finding, say: Say) -> bool:
    """Whether the repair was done."""
    if finding.fix is None:
        return False
    try:
        await finding.fix()
    except (StackError, OSError) as err:
        say(f"could not be repaired: {err}")
        return False
    say(f"repaired: {finding.text}")
    return True
