"""The slow, obvious scheduler: one VM after the other, one host after the other. The oracle of tests."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.common.expressions import (
    And,
    Arithmetic,
    Boolean,
    Choice,
    Comparison,
    Constant,
    Membership,
    Negative,
    Not,
    Number,
    Numeric,
    NumericAttribute,
    Or,
    TextComparison,
    VmThere,
)
from services.scheduler.core.hosts import HostFacts
from services.scheduler.core.shapes import Shape


@dataclass
class Host:
    """A host and what is given out of it."""

    facts: HostFacts
    cpu: int = 0
    memory: int = 0
    disk: int = 0
    vms: int = 0
    vm_ids: set[int] = field(default_factory=set)
    measured: tuple[float, float] | None = None
    used_then: tuple[int, int] = (0, 0)

    def number(self, name: str) -> float | None:
        total, facts = self.facts.total, self.facts
        known: dict[str, float] = {
            "ID": facts.host_id, "RUNNING_VMS": self.vms,
            "TOTAL_CPU": total.cpu, "USED_CPU": self.cpu, "FREE_CPU": total.cpu - self.cpu,
            "TOTAL_MEMORY": total.memory, "USED_MEMORY": self.memory, "FREE_MEMORY": total.memory - self.memory,
            "TOTAL_DISK": total.disk, "USED_DISK": self.disk, "FREE_DISK": total.disk - self.disk,
        }  # fmt: skip
        if name in known:
            return float(known[name])
        if name.startswith("LOAD_"):
            return self.load(name == "LOAD_MEMORY")
        try:
            found = float(facts.attributes[name])
        except (KeyError, ValueError):
            return None
        return found if math.isfinite(found) else None

    def load(self, is_memory: bool) -> float | None:
        """What was measured then, and what was placed since; without a measurement what is given out."""
        used, total = (self.memory, self.facts.total.memory) if is_memory else (self.cpu, self.facts.total.cpu)
        if total == 0:
            return None
        amount = float(used)
        if self.measured is not None:
            amount = self.measured[is_memory] / 100 * total + (used - self.used_then[is_memory])
        return max(amount, 0.0) / total * 100

    def take(self, shape: Shape) -> None:
        self.cpu += shape.demand.cpu
        self.memory += shape.demand.memory
        self.disk += shape.demand.disk
        self.vms += 1

    def fits(self, shape: Shape) -> bool:
        total, demand = self.facts.total, shape.demand
        pairs = [
            (total.cpu - self.cpu, demand.cpu),
            (total.memory - self.memory, demand.memory),
            (total.disk - self.disk, demand.disk),
        ]
        return all(wanted == 0 or free >= wanted for free, wanted in pairs)

    def passes(self, shape: Shape) -> bool:
        facts = self.facts
        return (
            facts.is_enabled
            and facts.is_connected
            and shape.wanted_host_id in (0, facts.host_id)
            and facts.taints <= shape.tolerations
            and holds(shape.requirement.condition, self)
            and self.fits(shape)
        )

    def score(self, shape: Shape) -> tuple[float, int, int, int]:
        free = self.facts.total.memory - self.memory
        return (rank(shape.rank.score, self), -self.vms, max(0, free), -self.facts.host_id)


_LIBC = ctypes.CDLL(None)


def place(hosts: Sequence[Host], shape: Shape, vm_id: int) -> int | None:
    """Places one VM on the best host; returns its position."""
    fitting = [index for index, host in enumerate(hosts) if host.passes(shape)]
    if not fitting:
        return None
    chosen = max(fitting, key=lambda index: hosts[index].score(shape))
    hosts[chosen].take(shape)
    hosts[chosen].vm_ids.add(vm_id)
    return chosen


def holds(node: Boolean, host: Host) -> bool:
    match node:
        case Comparison():
            left, right = value(node.left, host, None), value(node.right, host, None)
            if left is None or right is None:
                return False
            return _compared(node.sign, left, right)
        case TextComparison():
            text = host.facts.attributes.get(node.name)
            assert isinstance(node.text, str)
            return text is not None and is_like(text, node.text) is (node.sign == "=")
        case Membership():
            return any(_is_member(part.strip(), node.member) for part in _list(host.facts.attributes.get(node.name)))
        case VmThere():
            return (node.vm_id in host.vm_ids) is (node.sign == "=")
        case Not():
            return not holds(node.operand, host)
        case And():
            return all(holds(operand, host) for operand in node.operands)
        case Or():
            return any(holds(operand, host) for operand in node.operands)
        case Constant():
            return node.value


def is_like(text: str, pattern: str) -> bool:
    """What the C library says, which OpenNebula asks."""
    found: int = _LIBC.fnmatch(pattern.encode(), text.encode(), 0)
    return found == 0


def _list(text: str | None) -> list[str]:
    return [] if text is None else text.split(",")


def _is_member(part: str, member: str | float) -> bool:
    if isinstance(member, str):
        return is_like(part, member)
    try:
        return float(part) == member
    except ValueError:
        return False


def _compared(sign: str, left: float, right: float) -> bool:
    if math.isnan(left) or math.isnan(right):
        return False
    return {
        "=": left == right, "!=": left != right, ">": left > right,
        ">=": left >= right, "<": left < right, "<=": left <= right,
    }[sign]  # fmt: skip


def rank(node: Numeric, host: Host) -> float:
    found = value(node, host, 0.0)
    return -math.inf if found is None or math.isnan(found) else found


def value(node: Numeric, host: Host, missing: float | None) -> float | None:
    match node:
        case Number():
            return node.value
        case NumericAttribute():
            found = host.number(node.name)
            return missing if found is None else found
        case Choice():
            said = host.number(node.name)
            return value(next((number for case, number in node.cases if case == said), node.otherwise), host, missing)
        case Negative():
            operand = value(node.operand, host, missing)
            return None if operand is None else -operand
        case Arithmetic():
            left, right = value(node.left, host, missing), value(node.right, host, missing)
            if left is None or right is None:
                return None
            return _calculated(node.sign, left, right)


def _calculated(sign: str, left: float, right: float) -> float:
    if sign == "/":
        if right == 0:
            return (
                math.nan if left == 0 or math.isnan(left) else math.copysign(math.inf, left) * math.copysign(1, right)
            )
        return left / right
    return {"+": left + right, "-": left - right, "*": left * right}[sign]
