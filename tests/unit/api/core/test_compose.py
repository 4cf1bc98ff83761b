"""Messages put together from bytes are the messages that protobuf would have made."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from moln.compute.v1 import vm_pb2, vm_service_pb2
from services.api.core import compose

specs = st.builds(lambda name, owner: vm_pb2.VmSpec(name=name, owner_id=owner), st.text(), st.integers(0, 2**32 - 1))


@given(
    st.integers(0, 2**32 - 1),
    st.text(),
    specs,
    st.lists(st.builds(lambda e: vm_pb2.VmStatus(epoch=e), st.integers(0, 2**64 - 1))),
)
def test_a_vm_from_bytes_is_the_vm_from_messages(
    vm_id: int, uid: str, spec: vm_pb2.VmSpec, statuses: list[vm_pb2.VmStatus]
) -> None:
    raw = b"".join(
        (
            compose.number(1, vm_id),
            compose.frame(2, uid.encode()),
            compose.frame(3, spec.SerializeToString()),
            compose.repeated(8, (status.SerializeToString() for status in statuses)),
        )
    )
    assert vm_pb2.Vm.FromString(raw) == vm_pb2.Vm(id=vm_id, uid=uid, spec=spec, statuses=statuses)


def test_a_field_beyond_fifteen_and_a_long_payload_are_framed_right() -> None:
    status = vm_pb2.VmStatus(driver="x" * 20_000, observed_generation=300)
    assert vm_pb2.VmStatus.FromString(compose.frame(19, b"x" * 20_000) + compose.number(15, 300)) == status


def test_a_list_from_bytes_is_a_list() -> None:
    raw = compose.repeated(1, [compose.number(1, 1), compose.number(1, 2)]) + compose.number(3, 9)
    assert [vm.id for vm in vm_service_pb2.ListVmsResponse.FromString(raw).vms] == [1, 2]
