"""Orders to nodes, put together from stored bytes. Says when an order is due and what is in it; sends nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from moln.compute.v1 import vm_pb2
from moln.node.v1 import node_service_pb2
from services.api.core import compose
from services.api.index.vms import VmRecord
from services.common.store import Entry

ORDER_PARTS = frozenset({"spec", "secrets", "intent", "placement", "addresses", "volumes"})
"""Parts whose change makes a new order; a status is the node's own word."""


class Ticketing(NamedTuple):
    """How tickets for images are made: address of imagesvc, time of expiry, and (image id, host id) → ticket."""

    address: str
    expire_s: int
    sign: Callable[[int, int], str]


def is_ordered(record: VmRecord, host_id: int) -> bool:
    """Whether the host has to bring the VM up, run it or keep it."""
    intent = record.intent
    return intent is not None and intent.value.desired != vm_pb2.DESIRED_STATE_TERMINATED and record.host_id == host_id


def is_complete(record: VmRecord) -> bool:
    """Whether all parts that a node needs are there."""
    assert record.intent is not None  # noqa: S101  for the type checker: asked for ordered VMs only
    intent = record.intent.value
    return _is_there(intent.needs_addresses, record.addresses) and _is_there(intent.needs_volumes, record.volumes)


def _is_there(is_needed: bool, entry: Entry | None) -> bool:
    return not is_needed or (entry is not None and not entry.value.reason)


def order_bytes(record: VmRecord, host_id: int, secrets: bytes, ticketing: Ticketing) -> bytes:
    """A serialised VmOrder with all parts as they are stored."""
    assert record.placement is not None  # noqa: S101  for the type checker: only placed VMs are ordered
    pieces = [
        compose.number(1, host_id),
        compose.number(2, record.id),
        compose.frame(3, record.uid.encode()),
        compose.number(4, record.placement.value.epoch),
    ]
    parts = ((6, record.spec), (8, record.intent), (9, record.placement), (10, record.addresses), (11, record.volumes))
    pieces += [compose.frame(field, entry.raw) for field, entry in parts if entry is not None]
    if secrets:
        pieces.append(compose.frame(7, secrets))
    status = record.statuses.get(host_id)
    if status is not None:
        pieces.append(compose.frame(12, status.raw))
    pieces.append(compose.repeated(13, _tickets(record, host_id, ticketing)))
    return b"".join(pieces)


def erase_bytes(record: VmRecord | None, vm_id: int, uid: str, host_id: int) -> bytes:
    """A serialised VmOrder that leaves nothing of the VM on the host; with the parts that say how gently."""
    status = record.statuses.get(host_id) if record is not None else None
    epoch = status.value.epoch if status is not None else 0
    pieces = [
        compose.number(1, host_id),
        compose.number(2, vm_id),
        compose.frame(3, uid.encode()),
        compose.number(4, epoch),
        compose.number(5, 1),
    ]
    if record is not None:
        parts = ((6, record.spec), (8, record.intent), (10, record.addresses), (11, record.volumes), (12, status))
        pieces += [compose.frame(field, entry.raw) for field, entry in parts if entry is not None]
    return b"".join(pieces)


def _tickets(record: VmRecord, host_id: int, ticketing: Ticketing) -> Iterable[bytes]:
    if record.volumes is None or not ticketing.address:
        return
    volumes = record.volumes.value
    for volume in (*volumes.disks, volumes.kernel, volumes.initrd):
        if volume.image_id:
            yield node_service_pb2.ImageTicket(
                image_id=volume.image_id,
                address=ticketing.address,
                ticket=ticketing.sign(volume.image_id, host_id),
                expire_time=Timestamp(seconds=ticketing.expire_s),
            ).SerializeToString()
