"""Devices and NUMA nodes: never given twice, found where there is a way at all, and free for VMs that want none."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moln.compute.v1 import host_pb2, template_pb2, vm_pb2
from services.scheduler.core.amounts import KIB_PER_MIB, Amounts
from services.scheduler.core.devices import (
    Devices,
    Grant,
    Node,
    Pci,
    PciWish,
    Wish,
    grant_of,
    nodes_of,
    pci_of,
    wish_of,
)
from services.scheduler.core.explanation import explain
from services.scheduler.core.hosts import HostFacts
from services.scheduler.core.ledger import HostRevisions, Ledger
from services.scheduler.core.shapes import granted, held, shape, shape_key
from tests.unit.scheduler.core.test_ledger import ImaginedStore, place_all

GPU = PciWish("10de", "", "")
ANY_DISPLAY = PciWish("", "", "0300")
A100, T4, NIC = Pci("0000:01:00.0", "10de", "20b0", "0300"), Pci("0000:02:00.0", "10de", "1eb8", "0302"), Pci(
    "0000:03:00.0", "8086", "1572", "0200"
)  # fmt: skip
MIB = KIB_PER_MIB


def host(host_id: int, *pci: Pci, nodes: tuple[Node, ...] = ()) -> tuple[HostFacts, HostRevisions]:
    facts = HostFacts(host_id, f"h{host_id}", total=Amounts(1600, 1000 * MIB, 1000), pci=pci, nodes=nodes)
    return facts, HostRevisions(1, 1)


def asking(*vendors: str) -> dict[str, Any]:
    return {"pci_devices": [template_pb2.PciRequest(vendor=vendor) for vendor in vendors]}


def bound(ledger: Ledger) -> dict[int, Grant | None]:
    return {record.vm_id: record.grant for record in place_all(ledger)}


def test_a_plain_template_has_no_wish_and_a_plain_placement_no_grant() -> None:
    plain = template_pb2.VmTemplate(memory_mib=1, cpu=template_pb2.CpuShape(cores=2))
    plain.memory.numa_nodes = 1
    assert wish_of(template_pb2.VmTemplate()) is wish_of(plain) is None
    assert grant_of(vm_pb2.Granted(vcpus=1)) is None


def test_a_wish_is_read_from_the_template_and_a_grant_from_the_placement() -> None:
    template = template_pb2.VmTemplate(memory_mib=64, **asking("10DE"))
    template.memory.numa_nodes = 2
    wish = wish_of(template)
    assert wish == Wish((GPU,), 2, 32 * MIB)
    written = granted(template, Amounts(100, 64 * MIB), Grant(("0000:01:00.0",), (0, 1), 32 * MIB))
    assert grant_of(written) == Grant(("0000:01:00.0",), (0, 1), 32 * MIB)


def test_pinning_alone_asks_for_one_node() -> None:
    template = template_pb2.VmTemplate(memory_mib=64, cpu=template_pb2.CpuShape(pinning="shared"))
    assert wish_of(template) == Wish((), 1, 64 * MIB)


def test_a_device_that_only_one_wish_takes_is_left_to_it() -> None:
    found = Devices().find(1, (A100, T4), (), Wish((GPU, ANY_DISPLAY)))
    assert found == Grant(("0000:02:00.0", "0000:01:00.0"))


def test_what_is_held_is_not_given_again_until_it_is_released() -> None:
    devices, wish = Devices(), Wish((GPU,))
    first = devices.find(1, (A100,), (), wish)
    assert first is not None
    devices.hold(1, first)
    assert devices.find(1, (A100,), (), wish) is None
    with devices.without(1, first):
        assert devices.find(1, (A100,), (), wish) == first
    assert devices.find(1, (A100,), (), wish) is None
    devices.release(1, first)
    assert devices.find(1, (A100,), (), wish) == first


def test_the_nodes_with_most_room_are_given() -> None:
    devices, nodes = Devices(), (Node(0, 100), Node(1, 300), Node(2, 200))
    devices.hold(1, Grant((), (1,), 250))
    assert devices.find(1, (), nodes, Wish((), 2, 60)) == Grant((), (0, 2), 60)
    assert devices.find(1, (), nodes, Wish((), 3, 60)) is None


@given(
    st.lists(st.sampled_from([GPU, ANY_DISPLAY, PciWish("8086", "", "0200"), PciWish("", "1eb8", "")]), max_size=4),
    st.lists(st.sampled_from([A100, T4, NIC]), max_size=4),
)
def test_devices_are_found_exactly_where_some_choice_of_them_fits(wishes: list[PciWish], there: list[Pci]) -> None:
    pci = tuple(each._replace(address=f"0000:00:0{number}.0") for number, each in enumerate(there))
    found = Devices().find(1, pci, (), Wish(tuple(wishes)))
    choices = permutations(pci, len(wishes))
    fits = any(all(wish.is_met_by(each) for wish, each in zip(wishes, choice, strict=True)) for choice in choices)
    assert (found is not None) == fits
    if found is not None:
        by_address = {each.address: each for each in pci}
        assert len(set(found.pci)) == len(wishes)
        assert all(wish.is_met_by(by_address[address]) for wish, address in zip(wishes, found.pci, strict=True))


def test_vms_with_devices_spread_over_hosts_and_the_last_ones_wait_with_the_reason() -> None:
    store, ledger = ImaginedStore(), Ledger()
    ledger.update_hosts([host(1, A100, T4), host(2, A100), host(3)])
    for number in range(1, 6):
        key = f"{number:010d}"
        store.create(key, **asking("10de"))
        ledger.update_vm(key, store.parts(key))
    given: dict[int, Grant | None] = {}
    while found := bound(ledger):
        given |= found
    assert sorted(given) == [1, 2, 3], "the oldest first"
    assert sorted(grant.pci[0] for grant in given.values() if grant) == [A100.address, A100.address, T4.address]
    (group,) = ledger.waiting
    why = group.why(ledger.columns)
    assert why.reason == "NO_HOST_FITS"
    assert "devices" in why.message


def test_a_device_comes_free_with_its_vm_and_goes_to_who_waits() -> None:
    store, ledger = ImaginedStore(), Ledger()
    ledger.update_hosts([host(1, A100)])
    store.create("0000000001", **asking("10de"))
    store.place("0000000001", 1, 1, pci_addresses=[A100.address])
    store.create("0000000002", **asking("10de"))
    for key in ("0000000001", "0000000002"):
        ledger.update_vm(key, store.parts(key))
    assert bound(ledger) == {}
    store.vms.pop("0000000001")
    ledger.update_vm("0000000001", store.parts("0000000001"))
    assert bound(ledger) == {2: Grant((A100.address,))}


def test_a_binding_that_failed_gives_its_device_back() -> None:
    store, ledger = ImaginedStore(), Ledger()
    ledger.update_hosts([host(1, A100)])
    store.create("0000000001", **asking("10de"))
    ledger.update_vm("0000000001", store.parts("0000000001"))
    (record,) = place_all(ledger)
    ledger.unbind(record, store.parts("0000000001"))
    assert ledger.columns.granted(1, Wish((GPU,))) is not None


def test_vms_without_wishes_are_placed_as_ever_beside_them() -> None:
    store, ledger = ImaginedStore(), Ledger()
    ledger.update_hosts([host(1, A100), host(2)])
    store.create("0000000001")
    store.create("0000000002", **asking("10de"))
    for key in ("0000000001", "0000000002"):
        ledger.update_vm(key, store.parts(key))
    assert bound(ledger) == {1: None, 2: Grant((A100.address,))}


def test_an_explanation_does_not_count_a_vms_own_device_as_taken() -> None:
    store, ledger = ImaginedStore(), Ledger()
    ledger.update_hosts([host(1, A100)])
    store.create("0000000001", **asking("10de"))
    store.place("0000000001", 1, 1, pci_addresses=[A100.address])
    ledger.update_vm("0000000001", store.parts("0000000001"))
    wish = shape(shape_key(store.parts("0000000001")["spec"].value.template, 0))
    placement = store.parts("0000000001")["placement"].value
    assert explain(ledger.columns, wish, 5).candidates == []
    found = explain(ledger.columns, wish, 5, 1, held(placement), grant_of(placement.granted))
    assert [each.host_id for each in found.candidates] == [1]


@pytest.mark.parametrize("nodes", [0, 2])
def test_devices_and_nodes_are_read_from_the_inventory(nodes: int) -> None:
    inventory = host_pb2.HostInventory()
    device = inventory.pci_devices.add(address="0000:02:00.0", vendor="10DE", device="1EB8")
    setattr(device, "class", "0302")
    for number in range(nodes):
        inventory.numa_nodes.add(node_id=number, memory_mib=10)
    assert pci_of(inventory) == (T4,)
    assert nodes_of(inventory) == tuple(Node(number, 10 * MIB) for number in range(nodes))
