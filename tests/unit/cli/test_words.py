"""What commands say of VMs, by the names that people know."""

from __future__ import annotations

import pytest

from moln.compute.v1.vm_pb2 import Vm, VmSpec
from services.cli.vm_acting import naming
from services.common.domain.words import counted, them

WEB = Vm(id=3, spec=VmSpec(name="web"))


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("reboot VM web: it is HELD", "reboot VM web (3): it is HELD"),
        ("reboot of VM web: migrate is in flight", "reboot of VM web (3): migrate is in flight"),
        ("there is no VM 3 that anna may see", "VM web (3): there is no VM 3 that anna may see"),
        ("poweroff VM web2: it is HELD", "VM web (3): poweroff VM web2: it is HELD"),
    ],
)
def test_a_vm_that_is_refused_something_is_named_once_with_its_id(message: str, said: str) -> None:
    assert naming(WEB, message) == said


def test_one_is_counted_as_one() -> None:
    assert [counted(number, "VM") for number in (0, 1, 2)] == ["0 VMs", "1 VM", "2 VMs"]
    assert (them(1), them(2)) == ("it", "them")
