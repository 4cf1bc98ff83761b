"""Bridges as an order states them."""

from __future__ import annotations

import pytest

from services.hostagent.network.spec import NetworkError, bridges_of, check_name
from tests.support.hypervisor import add_nic, order


@pytest.mark.parametrize(
    ("name", "problem"),
    [("sixteen-letters1", "more than 15"), ("", "not allow"), ("a/b", "not allowed"), ("a b", "not")],
)
def test_a_name_that_linux_would_not_take_is_refused_by_name(name: str, problem: str) -> None:
    with pytest.raises(NetworkError, match=problem):
        check_name(name)


def test_two_interfaces_on_one_network_need_one_bridge() -> None:
    vm = order(None)
    add_nic(vm, "10.98.0.7", bridge="moln1", nic_id=0)
    add_nic(vm, "10.98.0.8", bridge="moln1", nic_id=1)
    (bridge,) = bridges_of(vm.addresses.nics)
    assert (bridge.name, str(bridge.gateway), bridge.has_nat) == ("moln1", "10.98.0.1/24", True)


def test_a_bridges_own_address_is_the_same_at_every_start() -> None:
    vm = order(None)
    add_nic(vm, "10.98.0.7", bridge="moln1")
    assert bridges_of(vm.addresses.nics)[0].mac == bridges_of(vm.addresses.nics)[0].mac
    assert bridges_of(vm.addresses.nics)[0].mac.startswith("02:")
