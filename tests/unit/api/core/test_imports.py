"""Guests that become VMs: which one is meant, which cannot, and what VM it is."""

from __future__ import annotations

import pytest

from moln.compute.v1 import host_pb2, template_pb2, vm_pb2
from services.api.core.imports import check_importable, choose_guest, imported_spec
from services.api.core.verbs import VERBS, Verb, check_verb
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason

UID = "5f1c2f1e-6d2b-4a53-9f44-0f6d1d1f9a10"


def guest(**fields: object) -> host_pb2.ForeignGuest:
    values = {"name": "legacy", "uuid": UID, "state": "running", "vcpus": 2, "memory_mib": 512, "is_persistent": True}
    return host_pb2.ForeignGuest(**{**values, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize("wanted", ["legacy", UID, UID.upper()])
def test_a_guest_is_meant_by_its_name_or_its_uuid(wanted: str) -> None:
    assert choose_guest([guest(name="other", uuid="u"), guest()], wanted, "node-1") == guest()


def test_a_guest_that_is_not_there_is_named_with_the_command_that_lists_them() -> None:
    with pytest.raises(MolnError) as caught:
        choose_guest([guest()], "Legacy", "node-1")
    assert caught.value.reason == Reason.GUEST_NOT_FOUND
    assert "'Legacy'" in caught.value.message and "moln host guests node-1" in caught.value.message


@pytest.mark.parametrize(
    ("fields", "reason", "words"),
    [
        ({"state": "off"}, Reason.STATE_FORBIDS, "it is off; a guest is imported while it runs"),
        ({"state": "paused"}, Reason.STATE_FORBIDS, "it is paused"),
        ({"is_persistent": False}, Reason.STATE_FORBIDS, "virsh define"),
        ({"cloud_uid": "another"}, Reason.GUEST_TAKEN, "another cloud (another)"),
    ],
)
def test_what_cannot_be_imported_is_refused_with_the_remedy(
    fields: dict[str, object], reason: Reason, words: str
) -> None:
    with pytest.raises(MolnError, match=r".") as caught:
        check_importable(guest(**fields))
    assert caught.value.reason == reason
    assert words in caught.value.message


def test_a_defined_guest_that_runs_can_be_imported() -> None:
    check_importable(guest())


def test_the_vm_has_the_guests_uuid_and_size_nothing_of_moln_s_and_no_other_host_after_a_loss() -> None:
    spec = imported_spec(7, guest(), "")
    assert (spec.uid, spec.name, spec.imported_as) == (UID, "legacy", "legacy")
    template = spec.template
    assert (template.vcpus, template.cpu_percent, template.memory_mib) == (2, 200, 512)
    assert not template.disks and not template.nics
    assert template.on_host_loss == template_pb2.ON_HOST_LOSS_LEAVE


@pytest.mark.parametrize(
    ("name", "wanted", "made"),
    [
        ("legacy <db>", "", "legacy-db-"),
        ("legacy", "db", "db"),
        ("_.x", "", "x"),
        ("42", "", "imported-7"),
        ("  ", "", "imported-7"),
        ("a" * 80, "", "a" * 63),
    ],
)
def test_the_vm_has_the_guests_name_as_far_as_vms_can_have_it(name: str, wanted: str, made: str) -> None:
    spec = imported_spec(7, guest(name=name), wanted)
    assert (spec.name, spec.imported_as) == (made, name)


REFUSED = {
    Verb.DEPLOY, Verb.SUSPEND, Verb.STOP, Verb.UNDEPLOY, Verb.MIGRATE, Verb.RESCHED, Verb.ATTACH_DISK,
    Verb.DETACH_DISK, Verb.ATTACH_NIC, Verb.DETACH_NIC, Verb.RESIZE, Verb.RESIZE_DISK, Verb.CREATE_SNAPSHOT,
    Verb.REVERT_SNAPSHOT, Verb.DELETE_SNAPSHOT, Verb.CREATE_DISK_SNAPSHOT, Verb.REVERT_DISK_SNAPSHOT,
    Verb.DELETE_DISK_SNAPSHOT, Verb.SAVE_DISK, Verb.CONTEXT,
}  # fmt: skip


@pytest.mark.parametrize("verb", sorted(REFUSED))
def test_what_needs_disks_or_a_definition_is_refused_of_an_imported_vm_in_every_state(verb: Verb) -> None:
    for state in vm_pb2.VmState.values():
        with pytest.raises(MolnError, match="it was imported") as caught:
            check_verb(verb, state, "legacy", is_imported=True)
        assert caught.value.reason == Reason.CAPABILITY


@pytest.mark.parametrize("verb", sorted(set(VERBS) - REFUSED))
def test_everything_else_is_asked_of_an_imported_vm_as_of_any(verb: Verb) -> None:
    state = min(VERBS[verb].allowed)
    assert check_verb(verb, state, "legacy", is_imported=True) is VERBS[verb]
