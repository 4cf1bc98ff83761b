"""Generated references: made from the tables, and as committed."""

from __future__ import annotations

import pytest

from moln.compute.v1 import vm_pb2, vm_service_pb2
from scripts import docs
from scripts.comments import comment_of
from scripts.docs_features import KNOWN, proofs
from scripts.docs_states import EXAMPLES, edges
from services.api.access.table import ACCESS
from services.api.core.verbs import VERBS
from services.common.domain.keys import KEYS
from services.common.domain.reasons import Reason

MADE = docs.documents()


@pytest.mark.parametrize("name", list(MADE))
def test_what_is_committed_is_what_would_be_made_now(name: str) -> None:
    assert (docs.DOCS / name).read_text() == MADE[name], "run: python -m scripts.docs"


def test_every_reason_key_method_and_verb_is_there() -> None:
    assert all(f"`{reason}`" in MADE["errors.md"] for reason in Reason)
    assert all(f"`{row.pattern}`" in MADE["keys.md"] for row in KEYS)
    assert all(f"`{verb}`" in MADE["states.md"] for verb in VERBS)
    ours = [method.rpartition("/")[2] for method in ACCESS if method.startswith("/moln.")]
    assert all(f"`{method}`" in MADE["api.md"] for method in ours)
    assert "`moln_api_vm_start_seconds`" in MADE["metrics.md"]


def test_every_element_of_the_contract_that_is_shown_has_its_comment() -> None:
    service = vm_service_pb2.DESCRIPTOR.services_by_name["VmService"]
    assert comment_of(service).startswith("Virtual machines.")
    assert comment_of(service.methods_by_name["GetVm"]) == "Returns one VM."
    assert comment_of(vm_pb2.VmState.DESCRIPTOR.values_by_name["VM_STATE_HELD"]) == "Waits for the user's release."
    for name, document in MADE.items():
        assert "|  |  |" not in document and not any(line.endswith("|  |") for line in document.splitlines()), name


def test_every_feature_of_guests_is_proven_by_a_test_that_is_there() -> None:
    proven = proofs(docs.ROOT)
    assert proven.keys() == KNOWN
    assert all(f"`{test}`" in MADE["guest-features.md"] for _, test in proven.values())


def test_the_diagram_is_drawn_by_the_rules() -> None:
    drawn = edges()
    assert ("RUNNING", "POWERING_OFF", "poweroff") in drawn
    assert ("HELD", "PENDING", "release") in drawn
    assert {name for edge in drawn for name in edge[:2]} <= set(EXAMPLES)


def test_a_bar_in_a_cell_does_not_end_it() -> None:
    assert docs.table(("a",), [("x|y",)])[-1] == "| x\\|y |"
