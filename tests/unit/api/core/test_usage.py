"""Usage and limits: additions that stay within limits, and go back to nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moln.common.v1 import common_pb2
from moln.operations.v1 import records_pb2
from services.api.core.usage import charge, give_back
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason

NONE = common_pb2.Amounts()
NOTHING = records_pb2.UsageRecord().SerializeToString()
amounts = st.builds(
    common_pb2.Amounts,
    vms=st.integers(0, 5), vcpus=st.integers(0, 5), memory_mib=st.integers(0, 5), disk_mib=st.integers(0, 5),
)  # fmt: skip


def usage(raw: bytes) -> common_pb2.Amounts:
    """What is stored."""
    return records_pb2.UsageRecord.FromString(raw).amounts


@pytest.mark.parametrize("limit", ["vms", "vcpus", "memory_mib", "disk_mib"])
def test_each_limit_is_kept(limit: str) -> None:
    one = common_pb2.Amounts(**{limit: 1})
    two = common_pb2.Amounts(**{limit: 2})
    add = charge(one, two, "anna")
    raw = add(add(NOTHING))
    assert getattr(usage(raw), limit) == 2
    with pytest.raises(MolnError) as caught:
        add(raw)
    assert caught.value.reason == Reason.QUOTA_EXCEEDED
    assert caught.value.metadata == {"limit": limit, "value": "2", "wanted": "3"}


def test_a_limit_of_zero_is_none() -> None:
    assert usage(charge(common_pb2.Amounts(vms=1_000_000), NONE, "anna")(NOTHING)).vms == 1_000_000


def test_who_is_not_there_any_more_is_charged_nothing() -> None:
    with pytest.raises(MolnError) as caught:
        charge(common_pb2.Amounts(vms=1), NONE, "anna")(None)
    assert caught.value.reason == Reason.USER_NOT_FOUND


@given(st.lists(amounts, max_size=8))
def test_what_was_charged_and_given_back_leaves_nothing(charged: list[common_pb2.Amounts]) -> None:
    raw = NOTHING
    for each in charged:
        raw = charge(each, NONE, "anna")(raw)
    for each in charged:
        raw = give_back(each)(raw)
    assert usage(raw) == NONE


def test_more_is_never_given_back_than_there_is() -> None:
    assert usage(give_back(common_pb2.Amounts(vms=2))(None)) == NONE
