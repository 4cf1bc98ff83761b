"""The closed list of reasons. A reason never changes its meaning and is never removed; nobody parses messages."""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import NamedTuple


class ErrorKind(Enum):
    """What sort of error a reason is; the rpc layer maps each to one gRPC status code."""

    INVALID = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    EXISTS = "ALREADY_EXISTS"
    PRECONDITION = "FAILED_PRECONDITION"
    EXHAUSTED = "RESOURCE_EXHAUSTED"
    DENIED = "PERMISSION_DENIED"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    ABORTED = "ABORTED"
    UNAVAILABLE = "UNAVAILABLE"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    DEADLINE = "DEADLINE_EXCEEDED"
    INTERNAL = "INTERNAL"


class Reason(StrEnum):
    """Every reason that an error, a view or an event can carry."""

    # Requests
    FIELD_INVALID = "FIELD_INVALID"
    FIELD_REQUIRED = "FIELD_REQUIRED"
    FIELD_IMMUTABLE = "FIELD_IMMUTABLE"
    EXPRESSION_INVALID = "EXPRESSION_INVALID"
    FILTER_INVALID = "FILTER_INVALID"
    PAGE_TOKEN_INVALID = "PAGE_TOKEN_INVALID"  # noqa: S105  a reason, no secret
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    ETAG_MISMATCH = "ETAG_MISMATCH"
    STATE_FORBIDS = "STATE_FORBIDS"
    STATE_UNREACHABLE = "STATE_UNREACHABLE"
    NOT_REACHED = "NOT_REACHED"
    CONFLICT = "CONFLICT"
    CAPABILITY = "CAPABILITY"
    # Access
    TOKEN_MISSING = "TOKEN_MISSING"  # noqa: S105  a reason, no secret
    TOKEN_INVALID = "TOKEN_INVALID"  # noqa: S105  a reason, no secret
    PASSWORD_INVALID = "PASSWORD_INVALID"  # noqa: S105  a reason, no secret
    ROLE_MISSING = "ROLE_MISSING"
    CAPABILITY_MISSING = "CAPABILITY_MISSING"
    TICKET_INVALID = "TICKET_INVALID"
    JOIN_TOKEN_INVALID = "JOIN_TOKEN_INVALID"  # noqa: S105  a reason, no secret
    HOST_SECRET_INVALID = "HOST_SECRET_INVALID"  # noqa: S105  a reason, no secret
    SERVICE_SECRET_INVALID = "SERVICE_SECRET_INVALID"  # noqa: S105  a reason, no secret
    # Objects
    VM_NOT_FOUND = "VM_NOT_FOUND"
    GUEST_NOT_FOUND = "GUEST_NOT_FOUND"
    GUEST_TAKEN = "GUEST_TAKEN"
    TEMPLATE_NOT_FOUND = "TEMPLATE_NOT_FOUND"
    HOST_NOT_FOUND = "HOST_NOT_FOUND"
    CLUSTER_NOT_FOUND = "CLUSTER_NOT_FOUND"
    IMAGE_NOT_FOUND = "IMAGE_NOT_FOUND"
    DATASTORE_NOT_FOUND = "DATASTORE_NOT_FOUND"
    NETWORK_NOT_FOUND = "NETWORK_NOT_FOUND"
    USER_NOT_FOUND = "USER_NOT_FOUND"
    OPERATION_NOT_FOUND = "OPERATION_NOT_FOUND"
    DISK_NOT_FOUND = "DISK_NOT_FOUND"
    NIC_NOT_FOUND = "NIC_NOT_FOUND"
    SNAPSHOT_NOT_FOUND = "SNAPSHOT_NOT_FOUND"
    NAME_TAKEN = "NAME_TAKEN"
    NAME_AMBIGUOUS = "NAME_AMBIGUOUS"
    BRIDGE_TAKEN = "BRIDGE_TAKEN"
    NETWORK_OVERLAPS = "NETWORK_OVERLAPS"
    HOST_IN_USE = "HOST_IN_USE"
    CLUSTER_IN_USE = "CLUSTER_IN_USE"
    IMAGE_IN_USE = "IMAGE_IN_USE"
    DATASTORE_IN_USE = "DATASTORE_IN_USE"
    NETWORK_IN_USE = "NETWORK_IN_USE"
    USER_IN_USE = "USER_IN_USE"
    LAST_ADMIN = "LAST_ADMIN"
    DEFAULT_OBJECT = "DEFAULT_OBJECT"
    # Room
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    ADDRESSES_EXHAUSTED = "ADDRESSES_EXHAUSTED"
    ADDRESS_TAKEN = "ADDRESS_TAKEN"
    DATASTORE_FULL = "DATASTORE_FULL"
    STORE_FULL = "STORE_FULL"
    # Images
    IMAGE_INVALID = "IMAGE_INVALID"
    IMAGE_NOT_READY = "IMAGE_NOT_READY"
    IMAGE_VANISHED = "IMAGE_VANISHED"
    CHECKSUM_MISMATCH = "CHECKSUM_MISMATCH"
    DOWNLOAD_FAILED = "DOWNLOAD_FAILED"
    UPLOAD_INCOMPLETE = "UPLOAD_INCOMPLETE"
    # Placement and life of a VM
    WAITING_FOR_SCHEDULER = "WAITING_FOR_SCHEDULER"
    NO_HOSTS = "NO_HOSTS"
    NO_HOST_FITS = "NO_HOST_FITS"
    WAITING_FOR_ADDRESSES = "WAITING_FOR_ADDRESSES"
    WAITING_FOR_VOLUMES = "WAITING_FOR_VOLUMES"
    WAITING_FOR_NODE = "WAITING_FOR_NODE"
    HOST_SILENT = "HOST_SILENT"
    HOST_FENCED = "HOST_FENCED"
    SCRIPT_MISSING = "SCRIPT_MISSING"
    SCRIPT_FAILED = "SCRIPT_FAILED"
    SELF_FENCE_SUSPENDED = "SELF_FENCE_SUSPENDED"
    STAGING_FAILED = "STAGING_FAILED"
    NETWORK_FAILED = "NETWORK_FAILED"
    CONTEXT_FAILED = "CONTEXT_FAILED"
    START_FAILED = "START_FAILED"
    HYPERVISOR_FAILED = "HYPERVISOR_FAILED"
    GUEST_CRASHED = "GUEST_CRASHED"
    GUEST_SHUT_DOWN = "GUEST_SHUT_DOWN"
    GUEST_VANISHED = "GUEST_VANISHED"
    PLUG_PULLED = "PLUG_PULLED"
    SCREEN_MISSING = "SCREEN_MISSING"
    AGENT_SILENT = "AGENT_SILENT"
    EXEC_REFUSED = "EXEC_REFUSED"
    EXEC_UNFINISHED = "EXEC_UNFINISHED"
    ERASE_FAILED = "ERASE_FAILED"
    # Operations and moves
    OPERATION_IN_FLIGHT = "OPERATION_IN_FLIGHT"
    OPERATION_ENDED = "OPERATION_ENDED"
    OPERATION_FAILED = "OPERATION_FAILED"
    OPERATION_CANCELLED = "OPERATION_CANCELLED"
    OPERATION_EXPIRED = "OPERATION_EXPIRED"
    OPERATION_SUPERSEDED = "OPERATION_SUPERSEDED"
    SCHEDULE_FULL = "SCHEDULE_FULL"
    SAVE_FAILED = "SAVE_FAILED"
    UPLOAD_FAILED = "UPLOAD_FAILED"
    TRANSFER_FAILED = "TRANSFER_FAILED"
    MIGRATION_FAILED = "MIGRATION_FAILED"
    MIGRATION_STALLED = "MIGRATION_STALLED"
    RECOVERED = "RECOVERED"
    EPOCH_PAST = "EPOCH_PAST"
    # Services
    STORE_STALE = "STORE_STALE"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    NOT_LEADER = "NOT_LEADER"
    SERVICE_UNAVAILABLE = "SERVICE_UNAVAILABLE"
    SERVICE_STOPPING = "SERVICE_STOPPING"
    REVISION_GONE = "REVISION_GONE"
    HISTORY_GAP = "HISTORY_GAP"
    VALUE_QUARANTINED = "VALUE_QUARANTINED"
    CLOCK_SKEW = "CLOCK_SKEW"
    INTERNAL = "INTERNAL"


class ReasonRow(NamedTuple):
    """What a reason means. `kind` is None for reasons that stand on a resource only, never in an error."""

    kind: ErrorKind | None
    meaning: str


_K = ErrorKind

REASONS: dict[Reason, ReasonRow] = {
    Reason.FIELD_INVALID: ReasonRow(_K.INVALID, "A field of the request has a value that is not allowed."),
    Reason.FIELD_REQUIRED: ReasonRow(_K.INVALID, "A field of the request is missing."),
    Reason.FIELD_IMMUTABLE: ReasonRow(_K.INVALID, "The field cannot be changed after creation."),
    Reason.EXPRESSION_INVALID: ReasonRow(_K.INVALID, "A requirement or rank does not parse; `column` says where."),
    Reason.FILTER_INVALID: ReasonRow(_K.INVALID, "A filter does not parse or names an unknown field."),
    Reason.PAGE_TOKEN_INVALID: ReasonRow(_K.INVALID, "The page token is not one of this list and filter."),
    Reason.REQUEST_ID_REUSED: ReasonRow(_K.INVALID, "The request id was used for another request."),
    Reason.ETAG_MISMATCH: ReasonRow(_K.ABORTED, "The object was changed since it was read; read it again."),
    Reason.STATE_FORBIDS: ReasonRow(_K.PRECONDITION, "The verb is not allowed in the object's present state."),
    Reason.STATE_UNREACHABLE: ReasonRow(_K.PRECONDITION, "The VM has come to rest in another state."),
    Reason.NOT_REACHED: ReasonRow(_K.DEADLINE, "The state was not reached in time."),
    Reason.CONFLICT: ReasonRow(_K.ABORTED, "Somebody else changed the same thing at the same time; try again."),
    Reason.CAPABILITY: ReasonRow(_K.UNIMPLEMENTED, "The driver or this release cannot do it."),
    Reason.TOKEN_MISSING: ReasonRow(_K.UNAUTHENTICATED, "The request carries no credentials."),
    Reason.TOKEN_INVALID: ReasonRow(_K.UNAUTHENTICATED, "The token is not one that was given out here."),
    Reason.PASSWORD_INVALID: ReasonRow(_K.UNAUTHENTICATED, "Name or password is wrong."),
    Reason.ROLE_MISSING: ReasonRow(_K.DENIED, "Only administrators may do this."),
    Reason.CAPABILITY_MISSING: ReasonRow(_K.DENIED, "The user lacks a capability; `capability` names it."),
    Reason.TICKET_INVALID: ReasonRow(_K.UNAUTHENTICATED, "The ticket is wrong or has expired."),
    Reason.JOIN_TOKEN_INVALID: ReasonRow(_K.UNAUTHENTICATED, "The join token is wrong, spent or has expired."),
    Reason.HOST_SECRET_INVALID: ReasonRow(_K.UNAUTHENTICATED, "The node's secret is not the host's."),
    Reason.SERVICE_SECRET_INVALID: ReasonRow(_K.UNAUTHENTICATED, "The caller is no service of this cloud."),
    Reason.VM_NOT_FOUND: ReasonRow(_K.NOT_FOUND, "There is no such VM, or it is not the caller's."),
    Reason.TEMPLATE_NOT_FOUND: ReasonRow(_K.NOT_FOUND, "There is no such template, or it is not the caller's."),
    Reason.HOST_NOT_FOUND: ReasonRow(_K.NOT_FOUND, "There is no such host."),
    Reason.CLUSTER_NOT_FOUND: ReasonRow(_K.NOT_FOUND, "There is no such cluster."),
    Reason.IMAGE_NOT_FOUND: ReasonRow(_K.NOT_FOUND, "There is no such image, or it is not the caller's."),
    Reason.DATASTORE_NOT_FOUND: ReasonRow(_K.NOT_FOUND, "There is no such datastore."),
    Reason.NETWORK_NOT_FOUND: ReasonRow(_K.NOT_FOUND, "There is no such network, or it is not the caller's."),
    Reason.USER_NOT_FOUND: ReasonRow(_K.NOT_FOUND, "There is no such user."),
    Reason.OPERATION_NOT_FOUND: ReasonRow(_K.NOT_FOUND, "The VM has no such operation, in flight or in its history."),
    Reason.DISK_NOT_FOUND: ReasonRow(_K.NOT_FOUND, "The VM has no disk of that number."),
    Reason.NIC_NOT_FOUND: ReasonRow(_K.NOT_FOUND, "The VM has no interface of that number."),
    Reason.SNAPSHOT_NOT_FOUND: ReasonRow(_K.NOT_FOUND, "The VM has no snapshot of that name."),
    Reason.GUEST_NOT_FOUND: ReasonRow(_K.NOT_FOUND, "The host has no such guest that moln did not create."),
    Reason.GUEST_TAKEN: ReasonRow(_K.EXISTS, "The guest is another VM's or another cloud's already."),
    Reason.NAME_TAKEN: ReasonRow(_K.EXISTS, "The owner has an object of that kind and name already."),
    Reason.NAME_AMBIGUOUS: ReasonRow(_K.INVALID, "Several objects have the name; use an id."),
    Reason.BRIDGE_TAKEN: ReasonRow(_K.EXISTS, "Another network uses the bridge."),
    Reason.NETWORK_OVERLAPS: ReasonRow(_K.EXISTS, "The address range overlaps that of another network on nodes."),
    Reason.HOST_IN_USE: ReasonRow(_K.PRECONDITION, "VMs are placed on the host."),
    Reason.CLUSTER_IN_USE: ReasonRow(_K.PRECONDITION, "Hosts are in the cluster."),
    Reason.IMAGE_IN_USE: ReasonRow(_K.PRECONDITION, "VMs use the image."),
    Reason.DATASTORE_IN_USE: ReasonRow(_K.PRECONDITION, "Images are in the datastore."),
    Reason.NETWORK_IN_USE: ReasonRow(_K.PRECONDITION, "Addresses of the network are given out."),
    Reason.USER_IN_USE: ReasonRow(_K.PRECONDITION, "The user has VMs."),
    Reason.LAST_ADMIN: ReasonRow(_K.PRECONDITION, "The last administrator cannot go."),
    Reason.DEFAULT_OBJECT: ReasonRow(_K.PRECONDITION, "The object is a default of the cloud."),
    Reason.QUOTA_EXCEEDED: ReasonRow(_K.EXHAUSTED, "A limit of the owner would be passed."),
    Reason.ADDRESSES_EXHAUSTED: ReasonRow(_K.EXHAUSTED, "The network has no free address."),
    Reason.ADDRESS_TAKEN: ReasonRow(_K.EXISTS, "The address that was wished for is given out."),
    Reason.DATASTORE_FULL: ReasonRow(_K.EXHAUSTED, "The datastore has no room for it."),
    Reason.STORE_FULL: ReasonRow(_K.EXHAUSTED, "The store nears its quota; delete what is not needed or raise it."),
    Reason.IMAGE_INVALID: ReasonRow(_K.INVALID, "The file is not an image that may be used."),
    Reason.IMAGE_NOT_READY: ReasonRow(_K.PRECONDITION, "The image is not ready."),
    Reason.IMAGE_VANISHED: ReasonRow(None, "The image's file is gone from its datastore."),
    Reason.CHECKSUM_MISMATCH: ReasonRow(_K.INVALID, "The bytes do not have the checksum that was stated."),
    Reason.DOWNLOAD_FAILED: ReasonRow(None, "The URL could not be fetched."),
    Reason.UPLOAD_INCOMPLETE: ReasonRow(_K.INVALID, "The upload ended before its last message."),
    Reason.WAITING_FOR_SCHEDULER: ReasonRow(None, "The scheduler has not looked at the VM yet."),
    Reason.NO_HOSTS: ReasonRow(None, "There is no host that is up and enabled."),
    Reason.NO_HOST_FITS: ReasonRow(None, "No host passes all filters; the message says how many each one left."),
    Reason.WAITING_FOR_ADDRESSES: ReasonRow(None, "netsvc owes the VM its addresses."),
    Reason.WAITING_FOR_VOLUMES: ReasonRow(None, "imagesvc owes the VM its volumes."),
    Reason.WAITING_FOR_NODE: ReasonRow(None, "The node has not taken the VM up yet."),
    Reason.HOST_SILENT: ReasonRow(_K.UNAVAILABLE, "The host is not heard."),
    Reason.HOST_FENCED: ReasonRow(_K.PRECONDITION, "The host is fenced: nothing may start there."),
    Reason.SCRIPT_MISSING: ReasonRow(_K.PRECONDITION, "The host has no script for it, or the api may not run it."),
    Reason.SCRIPT_FAILED: ReasonRow(_K.PRECONDITION, "The host's script has failed; the message is its own."),
    Reason.SELF_FENCE_SUSPENDED: ReasonRow(None, "So many hosts are silent at once that a watchdog is no proof."),
    Reason.STAGING_FAILED: ReasonRow(None, "A disk could not be made on the node."),
    Reason.NETWORK_FAILED: ReasonRow(None, "An interface could not be connected on the node."),
    Reason.CONTEXT_FAILED: ReasonRow(None, "The context could not be made on the node."),
    Reason.START_FAILED: ReasonRow(None, "The hypervisor did not start the guest."),
    Reason.HYPERVISOR_FAILED: ReasonRow(_K.UNAVAILABLE, "The hypervisor does not answer."),
    Reason.GUEST_CRASHED: ReasonRow(None, "The guest crashed."),
    Reason.GUEST_SHUT_DOWN: ReasonRow(None, "The guest shut down from within."),
    Reason.GUEST_VANISHED: ReasonRow(None, "The guest is gone without moln's doing."),
    Reason.PLUG_PULLED: ReasonRow(None, "The guest did not shut down in time; its plug was pulled."),
    Reason.SCREEN_MISSING: ReasonRow(_K.PRECONDITION, "The guest has no screen that can be connected to."),
    Reason.AGENT_SILENT: ReasonRow(_K.UNAVAILABLE, "The guest has no agent, or it does not answer."),
    Reason.EXEC_REFUSED: ReasonRow(_K.PRECONDITION, "The guest's agent cannot do it; the message holds its own words."),
    Reason.EXEC_UNFINISHED: ReasonRow(_K.DEADLINE, "The command in the guest has not ended in time; it goes on."),
    Reason.ERASE_FAILED: ReasonRow(None, "Something of the VM could not be removed from the node."),
    Reason.OPERATION_IN_FLIGHT: ReasonRow(_K.ABORTED, "Another operation is in flight; wait for it, or cancel it."),
    Reason.OPERATION_ENDED: ReasonRow(_K.PRECONDITION, "The operation has ended already."),
    Reason.OPERATION_FAILED: ReasonRow(None, "The hypervisor refused the operation; the message has its words."),
    Reason.OPERATION_CANCELLED: ReasonRow(None, "The operation was given up because its user asked for it."),
    Reason.OPERATION_EXPIRED: ReasonRow(None, "The operation did not end before its deadline."),
    Reason.OPERATION_SUPERSEDED: ReasonRow(None, "Something else was asked for that ends the operation."),
    Reason.SCHEDULE_FULL: ReasonRow(_K.EXHAUSTED, "The VM has as many scheduled verbs as are allowed."),
    Reason.SAVE_FAILED: ReasonRow(None, "The guest's memory could not be saved."),
    Reason.UPLOAD_FAILED: ReasonRow(None, "Disks or memory could not be brought to the datastore."),
    Reason.TRANSFER_FAILED: ReasonRow(None, "Disks or memory could not be fetched from where they are."),
    Reason.MIGRATION_FAILED: ReasonRow(None, "The guest could not be moved; it stays where it runs."),
    Reason.MIGRATION_STALLED: ReasonRow(None, "The guest changes its memory faster than it can be moved."),
    Reason.RECOVERED: ReasonRow(None, "An administrator declared how it ended."),
    Reason.EPOCH_PAST: ReasonRow(_K.ABORTED, "The VM has been placed anew since."),
    Reason.STORE_STALE: ReasonRow(_K.UNAVAILABLE, "The service has not heard from the store for 10 s."),
    Reason.STORE_UNAVAILABLE: ReasonRow(_K.UNAVAILABLE, "The store does not answer."),
    Reason.NOT_LEADER: ReasonRow(_K.UNAVAILABLE, "The process has ceased to be the leader; ask again."),
    Reason.SERVICE_UNAVAILABLE: ReasonRow(_K.UNAVAILABLE, "The service that owns this does not answer."),
    Reason.SERVICE_STOPPING: ReasonRow(_K.UNAVAILABLE, "The service is stopping; ask again."),
    Reason.REVISION_GONE: ReasonRow(_K.OUT_OF_RANGE, "The revision is too old to watch from; list anew."),
    Reason.HISTORY_GAP: ReasonRow(None, "Events are missing here: the keeper was away for too long."),
    Reason.VALUE_QUARANTINED: ReasonRow(None, "A stored value does not parse; the last good one is served."),
    Reason.CLOCK_SKEW: ReasonRow(None, "Clocks of two machines differ by more than they may."),
    Reason.INTERNAL: ReasonRow(_K.INTERNAL, "A defect; the request id finds it in the log."),
}
