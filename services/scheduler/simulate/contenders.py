"""What is compared: ways to rank hosts, as `--policy` and `--rank` name them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from services.common.domain.errors import MolnError
from services.common.expressions import Expression, Kind, parse
from services.scheduler.core.policies import for_clusters, policies_from_words
from services.scheduler.simulate.bad_input import BadInput

DEFAULT = "default"
USUAL = (DEFAULT, "packing", "striping")
"""What is compared where nothing is named."""


class Contender(NamedTuple):
    """A way to rank hosts for VMs that have no rank of their own."""

    name: str
    rank: Expression


def contenders(policies: Sequence[str], ranks: Sequence[str]) -> list[Contender]:
    """Policies (`packing`, or `packing=2+preference` for several by weight), then ranks. Raises BadInput."""
    names = policies or (() if ranks else USUAL)
    found = [Contender(name, _of_policy(name)) for name in names]
    found += [Contender(text, _of_rank(text)) for text in ranks]
    for number, each in enumerate(found):
        if each.name in (other.name for other in found[:number]):
            raise BadInput(f"'{each.name}' is named twice: it would be compared with itself")
    return found


def _of_policy(name: str) -> Expression:
    words = [] if name == DEFAULT else name.split("+")
    try:
        return for_clusters(policies_from_words(words), {})
    except ValueError as err:
        raise BadInput(f"--policy {err}, and {DEFAULT}: fewest VMs first, then most free memory") from err


def _of_rank(text: str) -> Expression:
    if not text.strip():
        raise BadInput(f"--rank '' is empty; --policy {DEFAULT} ranks as without a rank")
    try:
        rank = parse(text, Kind.RANK, "--rank")
    except MolnError as err:
        raise BadInput(err.message) from err
    if rank.of_vm:
        raise BadInput(
            f"--rank '{text}': {', '.join(sorted(rank.of_vm))} is of a VM; a rank for all VMs cannot name it"
        )
    return rank
