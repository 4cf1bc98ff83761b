"""Orders to nodes, put together from stored bytes. Says when an order is due and what is in it; sends nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from moln.compute.v1 import host_pb2, vm_pb2
from moln.node.v1 import node_service_pb2
from services.api.core import compose
from services.api.index.hosts import HostIndex
from services.api.index.vms import VmRecord
from services.common.store import Entry

ORDER_PARTS = frozenset({"spec", "secrets", "intent", "placement", "addresses", "volumes"})
"""Parts whose change makes a new order; a status is the node's own word."""


MOVE_TICKET_S = 24 * 3600
"""How long after its beginning the files of a move can be fetched."""


class Ticketing(NamedTuple):
    """How tickets are made: address of imagesvc, time of expiry, and (scope, subject, host id, expiry) → ticket."""

    address: str
    expire_s: int
    sign: Callable[[str, str, int, int], str]


def is_ordered(record: VmRecord, host_id: int) -> bool:
    """Whether the host has to bring the VM up, run it, keep it, or get ready for it."""
    intent = record.intent
    if intent is None or intent.value.desired == vm_pb2.DESIRED_STATE_TERMINATED:
        return False
    if host_id == record.target_host_id:
        return True
    return record.host_id == host_id and not _is_stored(record)


def _is_stored(record: VmRecord) -> bool:
    """Whether everything of the VM is in the datastore, as is wanted: then nothing of it stays on the host."""
    if record.intent is None or record.volumes is None or record.placement is None:
        return False
    is_wanted = record.intent.value.desired in (vm_pb2.DESIRED_STATE_STOPPED, vm_pb2.DESIRED_STATE_UNDEPLOYED)
    volumes = record.volumes.value
    return is_wanted and volumes.is_in_datastore and bool(volumes.saved_epoch == record.placement.value.epoch)


def is_complete(record: VmRecord) -> bool:
    """Whether all parts that a node needs are there."""
    assert record.intent is not None  # noqa: S101  for the type checker: asked for ordered VMs only
    intent = record.intent.value
    return _is_there(intent.needs_addresses, record.addresses) and _is_there(intent.needs_volumes, record.volumes)


def _is_there(is_needed: bool, entry: Entry | None) -> bool:
    return not is_needed or (entry is not None and not entry.value.reason)


def order_bytes(record: VmRecord, host_id: int, secrets: bytes, ticketing: Ticketing, hosts: HostIndex) -> bytes:
    """A serialised VmOrder with all parts as they are stored; that of a move's target has the move's own epoch."""
    assert record.placement is not None  # noqa: S101  for the type checker: only placed VMs are ordered
    placement = record.placement.value
    is_target = host_id == record.target_host_id
    pieces = [
        compose.number(1, host_id),
        compose.number(2, record.id),
        compose.frame(3, record.uid.encode()),
        compose.number(4, placement.move.epoch if is_target else placement.epoch),
    ]
    parts = ((6, record.spec), (8, record.intent), (9, record.placement), (10, record.addresses), (11, record.volumes))
    pieces += [compose.frame(field, entry.raw) for field, entry in parts if entry is not None]
    if secrets:
        pieces.append(compose.frame(7, secrets))
    status = record.statuses.get(host_id)
    if status is not None:
        pieces.append(compose.frame(12, status.raw))
    pieces.append(compose.repeated(13, _tickets(record, host_id, ticketing)))
    if placement.HasField("move"):
        pieces.append(compose.frame(14, _move(record, is_target, ticketing, hosts)))
    if ticketing.address and _needs_datastore(record):
        pieces.append(compose.frame(15, _data_ticket(record, host_id, ticketing)))
    return b"".join(pieces)


def _move(record: VmRecord, is_target: bool, ticketing: Ticketing, hosts: HostIndex) -> bytes:
    """The host's part in a move. Both hosts get the same ticket: the target shows it, the source knows it again."""
    assert record.placement is not None  # noqa: S101  for the type checker: a move is part of it
    placement = record.placement.value
    move = placement.move
    peer_id = placement.host_id if is_target else move.target_host_id
    peer = hosts.get(peer_id)
    inventory = peer.inventory.value if peer is not None and peer.inventory is not None else host_pb2.HostInventory()
    order = node_service_pb2.MoveOrder(
        move=move,
        is_target=is_target,
        peer_host_id=peer_id,
        peer_name=hosts.name_of(peer_id),
        peer_migration_uri=inventory.migration_uri,
        peer_data_address=inventory.data_address,
        ticket=ticketing.sign("move", move.move_id, placement.host_id, move.time.seconds + MOVE_TICKET_S),
    )
    status = record.statuses.get(peer_id)
    if status is not None:
        order.peer_status.CopyFrom(status.value)
    return order.SerializeToString()


def _needs_datastore(record: VmRecord) -> bool:
    """Whether the node has to bring something to the datastore, or to fetch it from there."""
    assert record.intent is not None  # noqa: S101  for the type checker: only living VMs are ordered
    intent = record.intent.value
    is_leaving = intent.desired in (vm_pb2.DESIRED_STATE_STOPPED, vm_pb2.DESIRED_STATE_UNDEPLOYED)
    is_stored = record.volumes is not None and record.volumes.value.is_in_datastore
    return is_leaving or is_stored or bool(intent.background.id) or bool(intent.operation.id)


def _data_ticket(record: VmRecord, host_id: int, ticketing: Ticketing) -> bytes:
    return node_service_pb2.DataTicket(
        address=ticketing.address,
        ticket=ticketing.sign("volume", record.uid, host_id, ticketing.expire_s),
        expire_time=Timestamp(seconds=ticketing.expire_s),
    ).SerializeToString()


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
                ticket=ticketing.sign("image", str(volume.image_id), host_id, ticketing.expire_s),
                expire_time=Timestamp(seconds=ticketing.expire_s),
            ).SerializeToString()
