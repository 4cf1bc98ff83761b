"""The transaction that closes an operation: result kept, slot cleared, spec settled, usage and references put right."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from moln.common.v1 import common_pb2
from moln.compute.v1 import vm_pb2
from services.api.core.operations import End, result_of, settled
from services.api.core.templates import needed
from services.api.core.usage import change
from services.api.index.vms import VmRecord
from services.common.domain.template_images import image_ids
from services.common.store import Leadership, Txn, key

_NO_LIMITS = common_pb2.Amounts()


def closing(
    record: VmRecord, end: End, cause: common_pb2.Cause, *, is_background: bool, guard: Leadership | None = None
) -> Txn:
    """Closes the exclusive or the background operation of a VM, which must be there, as `end` says."""
    assert record.intent is not None and record.spec is not None  # noqa: S101  for the type checker: a living VM
    intent = vm_pb2.VmIntent()
    intent.CopyFrom(record.intent.value)
    operation = intent.background if is_background else intent.operation
    result = result_of(operation, end, cause.time)
    txn = Txn(guard=guard)
    _settle(txn, record, operation, end)
    (intent.last_background if is_background else intent.last_operation).CopyFrom(result)
    intent.ClearField("background" if is_background else "operation")
    intent.cause.CopyFrom(cause)
    return txn.unchanged(record.intent.key, record.intent.mod_revision).put(record.intent.key, intent)


def _settle(txn: Txn, record: VmRecord, operation: vm_pb2.Operation, end: End) -> None:
    """The spec as it is after the operation; what the VM takes no more is given back."""
    assert record.spec is not None  # noqa: S101  for the type checker: `closing` has looked
    before = record.spec.value
    after = settled(before, operation, end)
    if after is None or after == before:
        return
    txn.unchanged(record.spec.key, record.spec.mod_revision).put(record.spec.key, after)
    amounts = needed(before.template), needed(after.template)
    if amounts[0] != amounts[1]:
        txn.fold(key("usage", record.owner_id), change(*amounts, _NO_LIMITS, before.owner))
    for image_id in image_ids(before.template) - image_ids(after.template):
        txn.delete(key("imageref", image_id, record.key_id))


def now_cause(actor: str, reason: str) -> common_pb2.Cause:
    """Who changes something now, and why."""
    now = Timestamp()
    now.GetCurrentTime()
    return common_pb2.Cause(actor=actor, reason=reason, time=now)
