"""Creates VMs, one or thousands, and says what came of each."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence

import click

from moln.compute.v1.template_pb2 import VmTemplate
from moln.compute.v1.vm_pb2 import Vm
from moln.compute.v1.vm_service_pb2 import BatchCreateVmsRequest, BatchCreateVmsResponse, CreateVmRequest, Failure
from moln.scheduler.v1.scheduler_service_pb2 import CheckExpressionRequest, CheckExpressionResponse
from services.cli.client import Client
from services.cli.exits import CliError, Exit
from services.cli.resources.vms import VMS
from services.cli.rpc_errors import exit_code_of_number
from services.cli.session import is_terminal
from services.common.domain.words import counted

BATCH = 500
BATCH_SECONDS = 120.0
CHECK_SECONDS = 3.0
_CHECK = "/moln.scheduler.v1.SchedulerService/CheckExpression"


def create_one(client: Client, request: CreateVmRequest) -> Vm:
    """Creates one, exactly once however often the request is sent."""
    request.request_id = str(uuid.uuid4())
    return client.unary(VMS.path("CreateVm"), request, Vm)


def create_many(client: Client, request: CreateVmRequest, count: int) -> tuple[list[Vm], list[Failure]]:
    """Creates `count` alike, numbered from 1 where they are several and have a name."""
    if count == 1:
        return [create_one(client, request)], []
    created: list[Vm] = []
    failures: list[Failure] = []
    for batch in _batches(request, count):
        answer = client.unary(VMS.path("BatchCreateVms"), batch, BatchCreateVmsResponse, seconds=BATCH_SECONDS)
        created += [result.vm for result in answer.results if not result.HasField("failure")]
        failures += [result.failure for result in answer.results if result.HasField("failure")]
        if is_terminal() and count > BATCH:
            click.echo(f"\r{len(created)} of {count} created", nl=len(created) + len(failures) >= count, err=True)
    return created, failures


def warn(client: Client, template: VmTemplate) -> None:
    """Says on standard error what the expressions of a template name that no host has; nothing if nobody answers."""
    if not (template.requirement or template.rank):
        return
    request = CheckExpressionRequest(requirement=template.requirement, rank=template.rank)
    try:
        answer = client.unary(_CHECK, request, CheckExpressionResponse, seconds=CHECK_SECONDS)
    except CliError:
        return
    for warning in answer.warnings:
        click.echo(f"moln: warning: {warning}", err=True)


def _batches(request: CreateVmRequest, count: int) -> Iterator[BatchCreateVmsRequest]:
    for start in range(0, count, BATCH):
        batch = BatchCreateVmsRequest()
        for index in range(start, min(start + BATCH, count)):
            item = batch.requests.add()
            item.CopyFrom(request)
            item.request_id = str(uuid.uuid4())
            if request.name:
                item.name = f"{request.name}-{index + 1}"
        yield batch


def refused(failures: Sequence[Failure], count: int) -> CliError:
    """One line for each kind of refusal."""
    kinds: dict[str, int] = {}
    for failure in failures:
        text = ": ".join(filter(None, (failure.reason, failure.message)))
        kinds[text] = kinds.get(text, 0) + 1
    lines = [f"  {number} × {text}" for text, number in kinds.items()]
    code = exit_code_of_number(failures[0].code, failures[0].reason) if failures else Exit.FAILED
    return CliError("\n".join([f"{len(failures)} of {count} VMs were not created:", *lines]), code)


def summary(vms: Sequence[Vm]) -> str:
    """`created 100 VMs, ids 12 to 111`."""
    if not vms:
        return "created no VM"
    if len(vms) == 1:
        return f"created {VMS.title(vms[0])}"
    ids = sorted(vm.id for vm in vms)
    is_row = ids[-1] - ids[0] == len(ids) - 1
    shown = f"{ids[0]} to {ids[-1]}" if is_row else ", ".join(map(str, ids[:20])) + (" …" if len(ids) > 20 else "")
    return f"created {counted(len(vms), 'VM')}, ids {shown}"
