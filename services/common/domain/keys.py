"""Every key pattern of the store, declared once: message, writer, bound, lifetime. docs/keys.md is made from it."""

from __future__ import annotations

from moln.common.v1 import common_pb2  # noqa: F401  (registers what the others embed)
from moln.compute.v1 import cluster_pb2, host_pb2, placement_pb2, template_pb2, vm_pb2
from moln.iam.v1 import user_pb2
from moln.image.v1 import image_pb2
from moln.network.v1 import network_pb2
from moln.operations.v1 import records_pb2
from services.common.store.keys import KeyRow, KeyTable

KIB = 1024
SCHEMA_VERSION = 1
"""Version of the stored forms that this release writes; a service refuses records that are newer."""

_OBJECT = "until the object is deleted"
_VM = "until the VM is gone"
_PROCESS = "the lease of its process"

KEYS = KeyTable(
    rows=(
        KeyRow("vm", "spec", vm_pb2.VmSpec, "api", 64 * KIB, _VM, "What the user asked for."),
        KeyRow("vm", "secrets", vm_pb2.VmSecrets, "api", 16 * KIB, _VM, "What no list shows.", revision_only=True),
        KeyRow("vm", "intent", vm_pb2.VmIntent, "api", 8 * KIB, _VM, "Desired state and operation."),
        KeyRow("vm", "placement", vm_pb2.VmPlacement, "scheduler", 8 * KIB, _VM, "Host, epoch, move."),
        KeyRow("vm", "addresses", vm_pb2.VmAddresses, "netsvc", 16 * KIB, _VM, "Addresses by interface."),
        KeyRow("vm", "volumes", vm_pb2.VmVolumes, "imagesvc", 16 * KIB, _VM, "Sources of disks."),
        KeyRow(
            "vm",
            "status/*",
            vm_pb2.VmStatus,
            "api (gateway)",
            16 * KIB,
            "until the node has erased",
            "What a node sees.",
        ),
        KeyRow("host", "spec", host_pb2.HostSpec, "api", 16 * KIB, _OBJECT, "What the administrator said."),
        KeyRow("host", "secret", host_pb2.HostSecret, "api", 4 * KIB, _OBJECT, "Hashes of token and secret."),
        KeyRow(
            "host", "inventory", host_pb2.HostInventory, "api (gateway)", 64 * KIB, _OBJECT, "What its agent found."
        ),
        KeyRow("host", "liveness", host_pb2.HostLiveness, "api (host controller)", 4 * KIB, _OBJECT, "Heard or not."),
        KeyRow("host", "operation", host_pb2.HostOperation, "api", 8 * KIB, _OBJECT, "What its script is asked for."),
        KeyRow("hostconn", "", host_pb2.HostConnection, "api (gateway)", 1 * KIB, _PROCESS, "Who holds its stream."),
        KeyRow("hostload", "", placement_pb2.HostLoad, "api (gateway)", 1 * KIB, _PROCESS, "How much of it is in use."),
        KeyRow("cluster", "spec", cluster_pb2.ClusterSpec, "api", 16 * KIB, _OBJECT, "A named part of the hosts."),
        KeyRow("user", "spec", user_pb2.UserSpec, "api", 8 * KIB, _OBJECT, "Role, capabilities, limits."),
        KeyRow("user", "secret", user_pb2.UserSecret, "api", 8 * KIB, _OBJECT, "Hashes of tokens and password."),
        KeyRow("usage", "", records_pb2.UsageRecord, "api", 1 * KIB, _OBJECT, "What an owner's VMs take."),
        KeyRow("template", "spec", template_pb2.TemplateSpec, "api", 64 * KIB, _OBJECT, "A named template."),
        KeyRow("image", "spec", image_pb2.ImageSpec, "imagesvc", 16 * KIB, _OBJECT, "What its owner said."),
        KeyRow("image", "intent", image_pb2.ImageIntent, "imagesvc", 1 * KIB, _OBJECT, "Wanted or to be erased."),
        KeyRow("image", "status", image_pb2.ImageStatus, "imagesvc", 8 * KIB, _OBJECT, "What it is in fact."),
        KeyRow("imageref", "*", image_pb2.ImageReference, "api", 1 * KIB, _VM, "A use of an image by a VM."),
        KeyRow("datastore", "spec", image_pb2.DatastoreSpec, "imagesvc", 8 * KIB, _OBJECT, "What was said of it."),
        KeyRow("datastore", "status", image_pb2.DatastoreStatus, "imagesvc", 4 * KIB, _OBJECT, "Its capacity."),
        KeyRow("network", "spec", network_pb2.NetworkSpec, "netsvc", 16 * KIB, _OBJECT, "What its owner said."),
        KeyRow("network", "intent", network_pb2.NetworkIntent, "netsvc", 1 * KIB, _OBJECT, "Wanted or not."),
        KeyRow("lease", "*", network_pb2.Lease, "netsvc", 1 * KIB, _VM, "An address that is given out."),
        KeyRow("name", "*", records_pb2.NameRecord, "the object's owner service", 1 * KIB, _OBJECT, "Who has a name."),
        KeyRow(
            "request", "*", records_pb2.RequestRecord, "api", 1 * KIB, "25 hours", "Result of a repeatable request."
        ),
        KeyRow("process", "", records_pb2.ProcessRecord, "each process", 4 * KIB, _PROCESS, "A running process."),
        KeyRow("leader", "", records_pb2.LeaderRecord, "each leader", 1 * KIB, _PROCESS, "Who leads."),
        KeyRow(
            "lane",
            "*",
            records_pb2.CounterRecord,
            "each process",
            1 * KIB,
            "the life of its process",
            "Batches sent.",
            revision_only=True,
        ),
        KeyRow("counter", "", records_pb2.CounterRecord, "every service", 1 * KIB, "for ever", "Next free id."),
        KeyRow("cloud", "", records_pb2.CloudRecord, "api", 4 * KIB, "for ever", "What the cloud shares."),
    )
)
"""The table. `/moln/<kind>/<id>[/<part>]`; a part that ends in `*` stands for any part with that beginning."""
