"""What is allowed where policies of placement are named. Pure; every refusal names the field."""

from __future__ import annotations

import math
from collections.abc import Sequence

from moln.compute.v1 import placement_pb2, template_pb2
from services.common.domain.errors import invalid
from services.common.domain.reasons import Reason

MOST_WEIGHT = 1_000_000
_P = placement_pb2.PlacementPolicy


def check_policies(policies: Sequence[placement_pb2.WeightedPolicy], path: str) -> None:
    """Raises INVALID for a policy that is missing, unknown or there twice, and for a weight that is none."""
    for number, each in enumerate(policies):
        where = f"{path}[{number}]"
        if not each.policy:
            raise invalid(f"{where}.policy", f"is required: {_known()}", reason=Reason.FIELD_REQUIRED)
        if each.policy not in _P.values():
            raise invalid(f"{where}.policy", f"there is no policy {each.policy}: {_known()}")
        if each.policy in [other.policy for other in policies[:number]]:
            raise invalid(f"{where}.policy", f"{_word(each.policy)} is there already; give it one weight")
        if not (math.isfinite(each.weight) and 0 <= each.weight <= MOST_WEIGHT):
            raise invalid(f"{where}.weight", f"must be a number above 0, at most {MOST_WEIGHT} (0 stands for 1)")


def check_policies_of_template(template: template_pb2.VmTemplate, path: str) -> None:
    """Raises INVALID also where a rank is named and not there, or there and not named."""
    check_policies(template.policies, f"{path}.policies")
    ranks = [number for number, each in enumerate(template.policies) if each.policy == _P.PLACEMENT_POLICY_RANK]
    if ranks and not template.rank:
        raise invalid(f"{path}.policies[{ranks[0]}]", f"RANK needs an expression in {path}.rank")
    if template.policies and template.rank and not ranks:
        raise invalid(f"{path}.rank", f"would not be used: name RANK among {path}.policies, or leave the policies out")


def check_policies_of_cluster(policies: Sequence[placement_pb2.WeightedPolicy], path: str) -> None:
    """Raises INVALID also for RANK: only a VM has one."""
    check_policies(policies, path)
    for number, each in enumerate(policies):
        if each.policy == _P.PLACEMENT_POLICY_RANK:
            raise invalid(f"{path}[{number}].policy", "RANK is for VMs: a cluster has no rank")


def _known() -> str:
    return ", ".join(_word(number) for number in _P.values() if number)


def _word(number: int) -> str:
    return _P.Name(placement_pb2.PlacementPolicy.ValueType(number)).removeprefix("PLACEMENT_POLICY_")
