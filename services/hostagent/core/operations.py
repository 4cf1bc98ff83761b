"""Which operations a node carries out, and when an order holds all that one needs. Pure."""

from __future__ import annotations

from moln.compute.v1 import vm_pb2
from moln.compute.v1.vm_pb2 import Operation
from moln.node.v1.node_service_pb2 import VmOrder

_OTHERS = frozenset({vm_pb2.OPERATION_KIND_UNSPECIFIED, vm_pb2.OPERATION_KIND_MIGRATE, vm_pb2.OPERATION_KIND_RETRY})
COSTS_CAPACITY = frozenset(
    {vm_pb2.OPERATION_KIND_ATTACH_DISK, vm_pb2.OPERATION_KIND_RESIZE, vm_pb2.OPERATION_KIND_RESIZE_DISK}
)
"""These wait until the scheduler has granted what they take."""


def is_for_node(operation: Operation) -> bool:
    """Whether the node is the executor."""
    return operation.kind not in _OTHERS


def is_ready(operation: Operation, order: VmOrder) -> bool:
    """Whether everything is there: what is granted, the disk's volume, the interface's address."""
    if operation.is_cancelled:
        return True
    if operation.kind in COSTS_CAPACITY and order.placement.granted_operation_id != operation.id:
        return False
    wanted = operation.parameters
    if operation.kind == vm_pb2.OPERATION_KIND_ATTACH_DISK:
        return any(volume.disk_id == wanted.disk_id for volume in order.volumes.disks)
    if operation.kind == vm_pb2.OPERATION_KIND_ATTACH_NIC:
        return any(address.nic_id == wanted.nic_id for address in order.addresses.nics)
    return True
