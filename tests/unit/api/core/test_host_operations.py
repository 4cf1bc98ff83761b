"""What a host's script may be told, and when the api asks it again by itself."""

from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from moln.common.v1 import common_pb2
from moln.compute.v1 import host_pb2
from services.api.core import host_operations as operations
from services.common.domain.errors import MolnError

FENCE = host_pb2.HOST_OPERATION_KIND_FENCE
CAUSE = common_pb2.Cause(actor="<api>", time=Timestamp(seconds=100))


@pytest.mark.parametrize(
    "parameters",
    [{"Host": "x"}, {"host": "x"}, {"host_id": "1"}, {"a-b": "x"}, {"a": "x\ny"}, {"a": "x" * 1025},
     {f"p{number}": "" for number in range(33)}],
)  # fmt: skip
def test_parameters_that_a_script_cannot_be_told_are_refused(parameters: dict[str, str]) -> None:
    with pytest.raises(MolnError) as caught:
        operations.check_parameters(parameters, "spec.script_parameters")
    assert caught.value.fields[0][0] == "spec.script_parameters"


def test_a_script_is_told_which_host_it_is_about() -> None:
    spec = host_pb2.HostSpec(name="node-1", script_parameters={"address": "bmc-1"})
    assert operations.parameters_of(7, spec) == {"address": "bmc-1", "host": "node-1", "host_id": 7}


def test_a_fence_that_fails_is_tried_again_after_pauses_that_grow() -> None:
    former, pauses = None, []
    for _ in range(6):
        operation = operations.new_operation("uid", FENCE, CAUSE, former)
        operation.is_automatic = True
        former = operations.ended(operation, Timestamp(seconds=1000), is_done=False, message="no route")
        pauses.append(former.not_before.seconds - 1000)
        assert not operations.may_fence_again(former, former.not_before.seconds - 1)
        assert operations.may_fence_again(former, former.not_before.seconds)
    assert pauses == [5, 10, 20, 40, 60, 60]
    assert former is not None
    assert former.attempt == 6


def test_nothing_is_asked_while_something_is_under_way() -> None:
    operation = operations.new_operation("uid", FENCE, CAUSE)
    assert operations.is_active(operation)
    assert not operations.may_fence_again(operation, 10_000)
    assert not operations.may_fence_again(operations.begun(operation), 10_000)
    assert operations.may_fence_again(operations.ended(operation, Timestamp(), is_done=False, message=""), 0)
