"""Which addresses the interfaces of one VM get."""

from __future__ import annotations

from moln.compute.v1.template_pb2 import NicTemplate
from moln.network.v1.network_pb2 import AddressRange, NetworkSpec
from services.common.domain.reasons import Reason
from services.netsvc.core.assignment import Assigned, Known, Refused, assign, give_back, know


def cloud(*sizes: int) -> dict[int, Known]:
    """Networks 1, 2 … with that many addresses each."""
    return {
        number: know(
            number,
            NetworkSpec(
                name=f"net{number}", uid=f"uid{number}", cidr=f"10.{number}.0.0/24", gateway=f"10.{number}.0.1",
                bridge=f"br{number}", dns=["10.0.0.53"], has_nat=True,
                ranges=[AddressRange(first_ipv4=f"10.{number}.0.2", size=size)],
            ),
        )
        for number, size in enumerate(sizes, 1)
    }  # fmt: skip


def nic(network_id: int, nic_id: int = 0, **fields: str) -> NicTemplate:
    return NicTemplate(nic_id=nic_id, network_id=network_id, **fields)  # type: ignore[arg-type]


def assigned(outcome: Assigned | Refused) -> Assigned:
    assert isinstance(outcome, Assigned)
    return outcome


def refused(outcome: Assigned | Refused) -> Refused:
    assert isinstance(outcome, Refused)
    return outcome


def test_every_interface_gets_an_address_and_what_a_node_needs() -> None:
    nets = cloud(5, 5)
    first, second = assigned(assign([nic(1, 0), nic(2, 1)], nets.get)).nics
    assert (first.ipv4, first.mac, first.prefix_length) == ("10.1.0.2", "02:00:0a:01:00:02", 24)
    assert (first.gateway, list(first.dns), first.bridge, first.has_nat) == ("10.1.0.1", ["10.0.0.53"], "br1", True)
    assert (second.nic_id, second.network_uid, second.ipv4) == (1, "uid2", "10.2.0.2")


def test_two_interfaces_in_one_network_get_different_addresses() -> None:
    nets = cloud(5)
    assert [each.ipv4 for each in assigned(assign([nic(1), nic(1, 1)], nets.get)).nics] == ["10.1.0.2", "10.1.0.3"]


def test_where_one_interface_gets_none_the_others_give_theirs_back() -> None:
    nets = cloud(5, 1)
    assigned(assign([nic(2)], nets.get))
    outcome = refused(assign([nic(1), nic(2, 1)], nets.get))
    assert (outcome.reason, outcome.lack) == (Reason.ADDRESSES_EXHAUSTED, ("room", 2, 0))
    assert "net2" in outcome.message
    assert nets[1].pool.free == 5


def test_a_wished_address_is_given_or_refused_by_name() -> None:
    nets = cloud(5)
    assert assigned(assign([nic(1, ipv4="10.1.0.4")], nets.get)).nics[0].ipv4 == "10.1.0.4"
    again = refused(assign([nic(1, ipv4="10.1.0.4")], nets.get))
    assert (again.reason, again.lack[0]) == (Reason.ADDRESS_TAKEN, "address")
    outside = refused(assign([nic(1, ipv4="10.1.0.200")], nets.get))
    assert (outside.reason, "no range" in outside.message) == (Reason.FIELD_INVALID, True)


def test_a_wished_mac_is_given_once() -> None:
    nets = cloud(5)
    mac = "02:12:34:56:78:9a"
    assert assigned(assign([nic(1, mac=mac)], nets.get)).nics[0].mac == mac
    again = refused(assign([nic(1, mac=mac)], nets.get))
    assert (again.reason, again.lack[0]) == (Reason.ADDRESS_TAKEN, "mac")
    wished = refused(assign([nic(1, mac=mac, ipv4="10.1.0.5")], nets.get))
    assert (wished.reason, wished.lack[0]) == (Reason.ADDRESS_TAKEN, "mac")


def test_a_network_that_is_gone_is_named() -> None:
    outcome = refused(assign([NicTemplate(network_id=9, network="front")], cloud().get))
    assert (outcome.reason, "front" in outcome.message) == (Reason.NETWORK_NOT_FOUND, True)


def test_what_was_set_aside_can_be_given_back() -> None:
    nets = cloud(2)
    outcome = assigned(assign([nic(1), nic(1, 1)], nets.get))
    assert nets[1].pool.free == 0
    give_back(outcome, nets.get)
    assert nets[1].pool.free == 2
