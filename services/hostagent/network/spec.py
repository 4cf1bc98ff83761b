"""What a bridge of a network is. Values and their checks; pure."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from moln.compute.v1.vm_pb2 import NicAddress
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason

LONGEST_NAME = 15
MARK = "moln:"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class NetworkError(MolnError):
    """An interface or bridge could not be made; the message names it."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.NETWORK_FAILED, message)


@dataclass(frozen=True, slots=True)
class BridgeSpec:
    """A bridge. `gateway` (address with prefix) is the node's own address on it; `has_nat` needs one."""

    name: str
    network_uid: str
    gateway: ipaddress.IPv4Interface | None = None
    mtu: int = 0
    has_nat: bool = False
    is_external: bool = False

    @property
    def mark(self) -> str:
        """What the bridge carries as alias, so that moln knows it again and touches no other."""
        return f"{MARK}{self.network_uid}"

    @property
    def mac(self) -> str:
        """The bridge's own address: the same at every node start, so that guests' caches stay true."""
        digest = hashlib.sha256(self.network_uid.encode()).hexdigest()
        return "02:" + ":".join(digest[i : i + 2] for i in range(0, 10, 2))


def check_name(name: str) -> str:
    """The name of a bridge as Linux allows it. Raises NetworkError."""
    if len(name) > LONGEST_NAME:
        raise NetworkError(f"the bridge name {name!r} has more than {LONGEST_NAME} characters: choose a shorter one")
    if not _NAME.fullmatch(name):
        raise NetworkError(f"the bridge name {name!r} is not allowed: use letters, digits, dot, dash and underscore")
    return name


def bridges_of(nics: Sequence[NicAddress]) -> list[BridgeSpec]:
    """The bridges that a VM's interfaces need, each once. Raises NetworkError for names that cannot be."""
    found: dict[str, BridgeSpec] = {}
    for nic in nics:
        gateway = None
        if nic.is_gateway_on_node and nic.gateway:
            gateway = ipaddress.IPv4Interface(f"{nic.gateway}/{nic.prefix_length}")
        found[nic.bridge] = BridgeSpec(
            check_name(nic.bridge), nic.network_uid, gateway, nic.mtu, nic.has_nat, nic.is_bridge_external
        )
    return list(found.values())


def tap_name(uid: str, nic_id: int) -> str:
    """The name of a guest's interface on the node; unlike libvirt's own, the same at every start."""
    return f"mt{uid.replace('-', '')[:8]}-{nic_id}"
