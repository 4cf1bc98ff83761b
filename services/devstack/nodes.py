"""Which nodes a stack has: simulated ones, and the best real one that this machine allows. Decides and says why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from services.devstack.plans import Value

SIM = "sim"
REAL = "node"


@dataclass(frozen=True)
class NodePlan:
    """One agent: its name among the processes, its hosts, its settings."""

    name: str
    hosts: Sequence[str]
    settings: Mapping[str, Value] = field(default_factory=dict)
    needs_root: bool = False
    """It has to be started by sudo."""
    words: str = ""
    """What it is, for people; with what is lost where it is less than it could be."""


def sim_plan(count: int) -> NodePlan:
    """One agent that carries all simulated hosts."""
    names = [f"sim-{number}" for number in range(1, count + 1)]
    return NodePlan(SIM, names, {"driver": "sim"}, words=f"{count} simulated host{'s' if count != 1 else ''}")
