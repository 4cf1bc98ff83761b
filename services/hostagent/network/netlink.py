"""Bridges by netlink: the only place that imports pyroute2. Blocking calls, for a thread; each is idempotent.

Touches only bridges that carry moln's mark. Must not know VMs.
"""

from __future__ import annotations

import errno
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from services.hostagent.network.spec import MARK, BridgeSpec, NetworkError

UNNAMED = "mnew"
"""Prefix of a bridge's name until it carries its mark: one that is left over is nobody's."""
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


@dataclass(frozen=True, slots=True)
class MarkedBridge:
    """A bridge of moln's, and how many interfaces are on it."""

    name: str
    network_uid: str
    ports: int


def ensure(spec: BridgeSpec) -> None:
    """Makes the bridge, or brings the one that is there to what `spec` says. Raises NetworkError."""
    with _netlink(spec.name) as ipr:
        link = _find(ipr, spec.name)
        if spec.is_external:
            _check_external(link, spec.name)
            return
        if link is None:
            _create(ipr, spec)
            link = _find(ipr, spec.name)
        if link is None or link.get_attr("IFLA_IFALIAS") != spec.mark:
            raise NetworkError(f"the bridge {spec.name} is not moln's: choose another name, or declare it external")
        _settle(ipr, link["index"], spec)
    if spec.has_nat or spec.gateway is not None:
        _forward()


def delete(name: str) -> bool:
    """Removes a bridge of moln's on which no interface is left; False where it stays, or never was."""
    with _netlink(name) as ipr:
        link = _find(ipr, name)
        if link is None or not _is_marked(link) or _ports(ipr, link["index"]):
            return False
        ipr.link("del", index=link["index"])
    return True


def marked() -> list[MarkedBridge]:
    """All bridges of moln's on this node, of whichever cloud; also such as were never finished."""
    with _netlink("all bridges") as ipr:
        links = [link for link in ipr.get_links(kind="bridge") if _is_marked(link)]
        return [MarkedBridge(_name(link), _network_uid(link), _ports(ipr, link["index"])) for link in links]


def _create(ipr: Any, spec: BridgeSpec) -> None:
    """The mark cannot be given at birth, so the bridge gets its name only when it has it."""
    unnamed = f"{UNNAMED}{secrets.token_hex(4)}"
    ipr.link("add", ifname=unnamed, kind="bridge", address=spec.mac, br_stp_state=0, br_forward_delay=0)
    index = ipr.link_lookup(ifname=unnamed)[0]
    try:
        ipr.link("set", index=index, IFLA_IFALIAS=spec.mark)
        ipr.link("set", index=index, ifname=spec.name)
    except NetlinkError as err:
        ipr.link("del", index=index)
        if err.code != errno.EEXIST:  # another agent of this machine was faster
            raise


def _settle(ipr: Any, index: int, spec: BridgeSpec) -> None:
    if spec.mtu:
        ipr.link("set", index=index, mtu=spec.mtu)
    ipr.link("set", index=index, state="up")
    if spec.gateway is not None:
        values = {"index": index, "address": str(spec.gateway.ip), "prefixlen": spec.gateway.network.prefixlen}
        ipr.addr("replace", **values, broadcast=str(spec.gateway.network.broadcast_address))


def _check_external(link: Any, name: str) -> None:
    if link is None:
        raise NetworkError(f"the bridge {name} is not on this node: make it, or let moln make the network's bridges")


def _find(ipr: Any, name: str) -> Any:
    indexes = ipr.link_lookup(ifname=name)
    return ipr.get_links(indexes[0])[0] if indexes else None


def _ports(ipr: Any, index: int) -> int:
    return sum(1 for link in ipr.get_links() if link.get_attr("IFLA_MASTER") == index)


def _is_marked(link: Any) -> bool:
    return _alias(link).startswith(MARK) or _name(link).startswith(UNNAMED)


def _alias(link: Any) -> str:
    return str(link.get_attr("IFLA_IFALIAS") or "")


def _name(link: Any) -> str:
    return str(link.get_attr("IFLA_IFNAME"))


def _network_uid(link: Any) -> str:
    return _alias(link).removeprefix(MARK)


def _forward() -> None:
    try:
        if FORWARDING.read_text().strip() != "1":
            FORWARDING.write_text("1")
    except OSError as err:
        raise NetworkError(
            f"the node cannot be made to forward packets ({err.strerror}): run the agent as root"
        ) from err


@contextmanager
def _netlink(what: str) -> Iterator[Any]:
    """A socket to the kernel; its refusals become one clear line."""
    try:
        with IPRoute() as ipr:
            yield ipr
    except NetlinkError as err:
        hint = ": run the agent as root" if err.code in (errno.EPERM, errno.EACCES) else ""
        raise NetworkError(f"the bridge {what} cannot be changed ({err.args[-1]}){hint}") from err
