"""The shared vocabulary: reasons, errors, names, callers, keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.domain.caller import Caller, Capability
from services.common.domain.errors import MolnError, invalid
from services.common.domain.ids import check_id, check_name
from services.common.domain.keys import KEYS
from services.common.domain.reasons import REASONS, ErrorKind, Reason
from services.common.rpc.errors import CODES
from services.common.rpc.store_errors import from_store_error
from services.common.store import (
    Conflict,
    NotLeader,
    StoreError,
    StoreFull,
    StoreStale,
    StoreUnavailable,
    ValueTooLarge,
)

ANNA = Caller(7, "anna", capabilities=frozenset({"vm.exec", "pci"}), request_id="r-1")


def test_every_reason_is_explained_and_named_as_it_is_written() -> None:
    assert set(REASONS) == set(Reason)
    assert all(reason.name == reason.value and REASONS[reason].meaning.endswith(".") for reason in Reason)


def test_every_kind_of_error_has_a_status_code() -> None:
    assert set(CODES) == set(ErrorKind)


def test_a_reason_of_a_resource_is_no_error() -> None:
    assert MolnError(Reason.NO_HOSTS, "said wrongly").kind is ErrorKind.INTERNAL
    assert MolnError(Reason.VM_NOT_FOUND, "no VM 3").kind is ErrorKind.NOT_FOUND


def test_an_invalid_field_is_named_in_the_message_too() -> None:
    error = invalid("template.vcpus", "must be at most 512")
    assert str(error) == "template.vcpus: must be at most 512"
    assert error.fields == [("template.vcpus", "must be at most 512")]
    assert error.reason == Reason.FIELD_INVALID


@pytest.mark.parametrize("name", ["a", "web-1", "0a", "A.b_c-d", "x" * 63])
def test_a_name_may_be(name: str) -> None:
    assert check_name("name", name) == name


@pytest.mark.parametrize("name", ["", "12", "-a", ".a", "a b", "a/b", "é", "x" * 64, "a\n"])
def test_a_name_may_not_be(name: str) -> None:
    with pytest.raises(MolnError) as caught:
        check_name("name", name)
    assert caught.value.fields[0][0] == "name"


@given(st.integers())
def test_an_id_is_positive_and_fits(value: int) -> None:
    if 0 < value < 2**32:
        assert check_id("id", value) == value
    else:
        with pytest.raises(MolnError):
            check_id("id", value)


def test_a_caller_goes_through_metadata_and_comes_back() -> None:
    assert Caller.from_metadata(dict(ANNA.to_metadata())) == ANNA
    admin = Caller(1, "admin", is_admin=True)
    assert Caller.from_metadata(dict(admin.to_metadata())) == admin


@pytest.mark.parametrize("metadata", [{}, {"moln-user-id": "x", "moln-user-name": "a"}, {"moln-user-id": "1"}])
def test_metadata_without_a_caller_are_refused(metadata: dict[str, str]) -> None:
    with pytest.raises(MolnError) as caught:
        Caller.from_metadata(metadata)
    assert caught.value.kind is ErrorKind.UNAUTHENTICATED


def test_a_caller_sees_his_own_and_what_is_public() -> None:
    assert ANNA.may_see(7) and ANNA.may_see(8, is_public=True) and not ANNA.may_see(8)
    assert Caller(1, "admin", is_admin=True).may_see(8)


@pytest.mark.parametrize("capability", list(Capability))
def test_a_capability_is_had_or_named_with_the_remedy(capability: Capability) -> None:
    Caller(1, "admin", is_admin=True).require(capability, "template.raw")
    if capability in ANNA.capabilities:
        ANNA.require(capability, "template.raw")
        return
    with pytest.raises(MolnError) as caught:
        ANNA.require(capability, "template.raw")
    assert f"moln user update anna --capability {capability}" in caught.value.message


def test_every_key_is_declared_once_and_bounded() -> None:
    places = [(row.kind, row.part) for row in KEYS]
    assert len(places) == len(set(places))
    assert all(0 < row.max_bytes <= 64 * 1024 and row.writer and row.doc.endswith(".") for row in KEYS)


def test_secrets_of_vms_are_kept_out_of_caches() -> None:
    row = KEYS.row("vm", "secrets")
    assert row is not None and row.revision_only
    assert [each.part for each in KEYS if each.kind == "vm" and each.revision_only] == ["secrets"]


def test_the_status_of_each_host_has_its_row() -> None:
    row = KEYS.row("vm", "status/0000000003")
    assert row is not None and row.part == "status/*"
    assert KEYS.row("vm", "nonsense") is None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Conflict("/moln/vm/1/spec", "absent"), Reason.CONFLICT),
        (NotLeader("/moln/leader/api"), Reason.NOT_LEADER),
        (StoreStale("silent"), Reason.STORE_STALE),
        (StoreUnavailable("away"), Reason.STORE_UNAVAILABLE),
        (StoreFull("full"), Reason.STORE_FULL),
        (ValueTooLarge("/moln/vm/1/spec", 70_000, 65_536), Reason.FIELD_INVALID),
        (StoreError("something"), Reason.INTERNAL),
    ],
)
def test_what_the_store_raises_has_a_reason(error: StoreError, reason: Reason) -> None:
    assert from_store_error(error).reason == reason
