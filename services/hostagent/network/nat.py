"""Address translation for a bridge: one nftables table of moln's own for each, so that no rule of others is touched.

Where the machine's firewall forwards nothing by itself, two iptables rules let the bridge through; they carry the mark.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from services.common.exec.program import CommandError, Limits, run_program
from services.hostagent.network.spec import BridgeSpec, NetworkError

FAMILY = "ip"
_LIMITS = Limits(seconds=30.0)


def table_name(bridge: str) -> str:
    """The table of a bridge."""
    return f"moln-{bridge}"


async def ensure(spec: BridgeSpec) -> None:
    """Puts the bridge's table in place, as one transaction; replaces an earlier one."""
    if spec.gateway is None or not spec.has_nat:
        return
    rules = {"nftables": _table(spec)}
    try:
        await run_program(["nft", "-j", "-f", "-"], input=json.dumps(rules).encode(), limits=_LIMITS)
    except CommandError as err:
        raise NetworkError(f"address translation for the bridge {spec.name} cannot be set up: {err}") from err
    await _let_through(spec)


async def remove(bridge: str, mark: str) -> None:
    """Takes the bridge's rules away; none there: nothing happens."""
    table = {"family": FAMILY, "name": table_name(bridge)}
    rules = {"nftables": [{"add": {"table": table}}, {"delete": {"table": table}}]}
    await run_program(["nft", "-j", "-f", "-"], input=json.dumps(rules).encode(), limits=_LIMITS, check=False)
    for rule in _forward_rules(bridge, mark):
        while await _iptables("-C", rule):
            if not await _iptables("-D", rule):
                break


def _table(spec: BridgeSpec) -> list[dict[str, object]]:
    name = table_name(spec.name)
    table: dict[str, object] = {"family": FAMILY, "name": name}
    chain = {"family": FAMILY, "table": name, "name": "postrouting"}
    hook = {"type": "nat", "hook": "postrouting", "prio": 100, "policy": "accept"}
    rule = {**chain, "chain": chain["name"], "comment": spec.mark, "expr": _masquerade(spec)}
    del rule["name"]
    return [
        {"add": {"table": table}},
        {"delete": {"table": table}},
        {"add": {"table": table}},
        {"add": {"chain": {**chain, **hook}}},
        {"add": {"rule": rule}},
    ]


def _masquerade(spec: BridgeSpec) -> list[dict[str, object]]:
    assert spec.gateway is not None  # noqa: S101 -- callers ask only for bridges that have one
    network = spec.gateway.network
    inside = {"prefix": {"addr": str(network.network_address), "len": network.prefixlen}}
    return [
        {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": inside}},
        {"match": {"op": "!=", "left": {"payload": {"protocol": "ip", "field": "daddr"}}, "right": inside}},
        {"masquerade": None},
    ]


async def _let_through(spec: BridgeSpec) -> None:
    if not await _drops_by_default():
        return
    for rule in _forward_rules(spec.name, spec.mark):
        if not await _iptables("-C", rule):
            await _iptables("-I", rule)


async def _drops_by_default() -> bool:
    try:
        rules = await run_program(["iptables", "-S", "FORWARD"], limits=_LIMITS)
    except CommandError:
        return False
    return "-P FORWARD ACCEPT" not in rules.text


async def _iptables(verb: str, rule: Sequence[str]) -> bool:
    try:
        return (await run_program(["iptables", "-w", "10", verb, *rule], limits=_LIMITS, check=False)).status == 0
    except CommandError:
        return False


def _forward_rules(bridge: str, mark: str) -> list[list[str]]:
    end = ["-m", "comment", "--comment", mark, "-j", "ACCEPT"]
    return [["FORWARD", "-i", bridge, *end], ["FORWARD", "-o", bridge, *end]]
