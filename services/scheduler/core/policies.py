"""Ways to rank hosts, by name. Each is a rank that could be written by hand, so that one evaluator serves them all.

A policy says a number from 0 to 1 for a host, a preference or a rank whatever it says; several are added by weight.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from moln.compute.v1 import placement_pb2
from services.common.expressions import Arithmetic, Choice, Expression, Kind, Number, Numeric, parse, scored

_P = placement_pb2.PlacementPolicy
_PREFIX = "PLACEMENT_POLICY_"
_RANKS: Mapping[int, str] = {
    _P.PLACEMENT_POLICY_PACKING: "(USED_CPU / TOTAL_CPU + USED_MEMORY / TOTAL_MEMORY) / 2",
    _P.PLACEMENT_POLICY_STRIPING: "(FREE_CPU / TOTAL_CPU + FREE_MEMORY / TOTAL_MEMORY) / 2",
    _P.PLACEMENT_POLICY_LOAD_AWARE: "1 - (LOAD_CPU + LOAD_MEMORY) / 200",
    _P.PLACEMENT_POLICY_PREFERENCE: "PREFERENCE / 100",
}
_NAMES = {number: name.removeprefix(_PREFIX).lower().replace("_", "-") for name, number in _P.items() if number}
_BY_NAME = {name: number for number, name in _NAMES.items()}

Policies = tuple[tuple[int, float], ...]
"""Numbers of policies with their weights."""


class Term(NamedTuple):
    """What one policy adds to a score: weight times value."""

    name: str
    weight: float
    value: Numeric


def policies_of(messages: Iterable[placement_pb2.WeightedPolicy]) -> Policies:
    """The policies as plain values; what this release does not know is passed over."""
    return tuple((each.policy, each.weight or 1.0) for each in messages if each.policy in _NAMES)


def policies_from_words(words: Sequence[str]) -> Policies:
    """Policies as settings have them: `packing`, or `packing=2`. Raises ValueError, which says what was expected."""
    found = []
    for word in words:
        name, _, weight = word.partition("=")
        number = _BY_NAME.get(name)
        if number is None or number not in _RANKS:
            known = ", ".join(_NAMES[each] for each in _RANKS)
            raise ValueError(f"'{word}': there is no policy '{name}' for all hosts; there are: {known}")
        found.append((number, _weight(word, weight or "1")))
    return tuple(found)


def terms(policies: Policies, rank: Expression) -> tuple[Term, ...]:
    """The terms of a score; `rank` is the VM's own."""
    return tuple(Term(_NAMES[number], weight, _value(number, rank)) for number, weight in policies)


def combined(policies: Policies, rank: Expression) -> Expression:
    """The rank that the policies make together; without any the VM's own."""
    found = terms(policies, rank)
    if not found:
        return rank
    words = " ".join(f"{term.name}={term.weight:g}" for term in found)
    score = _weighted(found[0])
    for term in found[1:]:
        score = Arithmetic("+", score, _weighted(term))
    return scored(f"{words} {rank.text}", score)


def for_clusters(default: Policies, clusters: Mapping[int, Policies]) -> Expression:
    """The rank for VMs that do not say: each host is ranked by the policies of its cluster.

    As soon as one cluster has policies, hosts of which nobody says anything are ranked by striping, so that hosts of
    all clusters can be compared.
    """
    none = parse("", Kind.RANK)
    if not any(clusters.values()):
        return combined(default, none)
    others = combined(default or ((_P.PLACEMENT_POLICY_STRIPING, 1.0),), none)
    ranks = [(cluster_id, combined(policies, none)) for cluster_id, policies in sorted(clusters.items()) if policies]
    words = "; ".join(f"{cluster_id}: {rank.text}" for cluster_id, rank in ranks)
    cases = tuple((float(cluster_id), rank.score) for cluster_id, rank in ranks)
    return scored(f"{words}; {others.text}", Choice("CLUSTER_ID", cases, others.score))


def _value(number: int, rank: Expression) -> Numeric:
    return rank.score if number == _P.PLACEMENT_POLICY_RANK else parse(_RANKS[number], Kind.RANK).score


def _weighted(term: Term) -> Numeric:
    return term.value if term.weight == 1 else Arithmetic("*", Number(term.weight), term.value)


def _weight(word: str, text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = 0.0
    if not 0 < weight <= MOST_WEIGHT:
        raise ValueError(f"'{word}': the weight is a number above 0, at most {MOST_WEIGHT}")
    return weight


MOST_WEIGHT = 1_000_000
