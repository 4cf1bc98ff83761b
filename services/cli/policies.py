"""Policies of placement, as the command line has them: `packing`, `load-aware=2`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

import click

from moln.compute.v1.placement_pb2 import PlacementPolicy, WeightedPolicy

F = TypeVar("F", bound=Callable[..., Any])
_PREFIX = "PLACEMENT_POLICY_"
_POLICIES = {
    name.removeprefix(_PREFIX).lower().replace("_", "-"): cast(PlacementPolicy, number)
    for name, number in PlacementPolicy.items()
    if number
}


class PolicyType(click.ParamType[WeightedPolicy]):
    """`NAME` or `NAME=WEIGHT`."""

    name = "policy"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> WeightedPolicy:
        """The policy; a usage error names what there is."""
        name, sign, weight = str(value).partition("=")
        if name not in _POLICIES:
            self.fail(f"there is no policy '{name}'; there are: {', '.join(_POLICIES)}", param, ctx)
        try:
            number = float(weight) if sign else 0.0
        except ValueError:
            self.fail(f"'{weight}' is no weight: a number is expected, as in {name}=2", param, ctx)
        if sign and not number > 0:
            self.fail(f"'{weight}' is no weight: it must be above 0", param, ctx)
        return WeightedPolicy(policy=_POLICIES[name], weight=number)


def policy_option(text: str) -> Callable[[F], F]:
    """The option `--policy`."""
    words = f"{text} {', '.join(_POLICIES)}."
    return click.option("--policy", type=PolicyType(), multiple=True, metavar="NAME[=WEIGHT]", help=words)


def policy_words(policies: Iterable[WeightedPolicy]) -> str:
    """The same for people."""
    names = {number: name for name, number in _POLICIES.items()}
    words = [(names.get(each.policy, str(each.policy)), each.weight) for each in policies]
    return " ".join(f"{name}={weight:g}" if weight not in (0, 1) else name for name, weight in words)
