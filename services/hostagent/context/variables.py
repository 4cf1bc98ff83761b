"""The context variables of a VM: what its owner said, and what the cloud knows (host name, addresses). Pure.

What the owner states under a name goes before what the cloud would have put there.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Iterable

from moln.compute.v1.vm_pb2 import NicAddress
from moln.node.v1.node_service_pb2 import VmOrder

LONGEST_HOSTNAME = 63
_NOT_IN_HOSTNAME = re.compile(r"[^A-Za-z0-9.-]+")


def variables_of(order: VmOrder) -> dict[str, str]:
    """All variables of the VM's `context.sh`; secrets among them."""
    context = order.spec.template.context
    variables = {"VMID": str(order.vm_id), "SET_HOSTNAME": context.hostname or hostname_from(order.spec.name)}
    if context.ssh_keys:
        variables["SSH_PUBLIC_KEY"] = "\n".join(key.strip() for key in context.ssh_keys)
    if context.username:
        variables["USERNAME"] = context.username
    if context.start_script:
        variables["START_SCRIPT_BASE64"] = base64.b64encode(context.start_script.encode()).decode()
    if context.user_data:
        variables |= {"USER_DATA": base64.b64encode(context.user_data).decode(), "USER_DATA_ENCODING": "base64"}
    if not context.no_network:
        variables |= network_variables(order.addresses.nics)
    return variables | dict(context.variables) | dict(order.secrets.context_variables)


def network_variables(nics: Iterable[NicAddress]) -> dict[str, str]:
    """ETHn_* of every interface; empty values are there too, as guests expect them."""
    variables: dict[str, str] = {}
    for nic in nics:
        variables |= {f"ETH{nic.nic_id}_{name}": value for name, value in _interface(nic).items()}
    if variables:
        variables["NETWORK"] = "YES"
    return variables


def hostname_from(name: str) -> str:
    """A VM's name as a host name: what is not allowed in one becomes a dash."""
    return _NOT_IN_HOSTNAME.sub("-", name).strip("-.")[:LONGEST_HOSTNAME].rstrip("-.") or "moln"


def _interface(nic: NicAddress) -> dict[str, str]:
    values = {
        "MAC": nic.mac,
        "IP": nic.ipv4,
        "MASK": "",
        "NETWORK": "",
        "GATEWAY": nic.gateway,
        "DNS": " ".join(nic.dns),
        "SEARCH_DOMAIN": nic.search_domain,
        "MTU": str(nic.mtu or ""),
        "METHOD": "" if nic.ipv4 else "dhcp" if not nic.ipv6 else "skip",
        "METRIC": "",
    }
    if nic.ipv4:
        network = ipaddress.ip_network(f"{nic.ipv4}/{nic.prefix_length}", strict=False)
        values |= {"MASK": str(network.netmask), "NETWORK": str(network.network_address)}
    if nic.ipv6:
        values |= {"IP6": nic.ipv6, "IP6_METHOD": "static"}
    return values
