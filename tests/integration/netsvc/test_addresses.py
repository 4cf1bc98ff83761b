"""Addresses of VMs: given once, explained where there are none, taken back at the end."""

from __future__ import annotations

import asyncio
import random

import pytest

from moln.compute.v1.vm_pb2 import DesiredState, VmIntent
from moln.network.v1.network_pb2 import Lease, NetworkSpec
from services.common.store import Txn, key
from tests.integration.netsvc.conftest import Cloud, Nets, Start, range_of
from tests.support.eventually import eventually
from tests.support.reigns import Running


async def test_a_vm_gets_an_address_for_each_interface_in_one_step(nets: Nets, cloud: Cloud) -> None:
    front = await nets.create("front", "10.44.0.0/24", gateway="10.44.0.1", has_nat=True, dns=["10.0.0.53"])
    back = await nets.create("back", "10.45.0.0/24")
    vm = await cloud.vm(front.id, back.id)
    await eventually(lambda: cloud.ips(vm))
    assert cloud.ips(vm) == ["10.44.0.2", "10.45.0.1"]
    found = cloud.addresses(vm)
    assert found is not None
    first = found.nics[0]
    assert (first.mac, first.prefix_length, first.gateway) == ("02:00:0a:2c:00:02", 24, "10.44.0.1")
    assert (first.bridge, first.has_nat, first.network_uid) == (front.spec.bridge, True, front.spec.uid)
    lease = cloud.leases(front.id)["10.44.0.2"]
    assert (lease.vm_id, lease.vm_uid, lease.nic_id, lease.mac) == (vm, f"vm-{vm}", 0, first.mac)
    entries = [cloud.store.cache.get("vm", vm, "addresses"), cloud.store.cache.get("lease", front.id, "10.44.0.2")]
    assert len({entry.mod_revision for entry in entries if entry}) == 1


async def test_a_vm_without_interfaces_gets_nothing(nets: Nets, cloud: Cloud) -> None:
    front = await nets.create("front", "10.44.0.0/24")
    without = await cloud.vm()
    later = await cloud.vm(front.id)
    await eventually(lambda: cloud.ips(later))
    assert cloud.addresses(without) is None


async def test_vms_that_were_there_before_netsvc_get_theirs(cloud: Cloud, start: Start) -> None:
    async with start() as first:
        await eventually(lambda: first.is_leader)
        front = await Nets(first).create("front", "10.44.0.0/24")
    vm = await cloud.vm(front.id)
    async with start():
        await eventually(lambda: cloud.ips(vm))


async def test_a_full_network_says_so_and_gives_room_to_the_first_who_waits(nets: Nets, cloud: Cloud) -> None:
    front = await nets.create("front", "10.44.0.0/24", range_of("10.44.0.10", 2))
    first, second, third, fourth = [await cloud.vm(front.id) for _ in range(4)]
    await eventually(lambda: cloud.reason(third) == cloud.reason(fourth) == "ADDRESSES_EXHAUSTED")
    found = cloud.addresses(third)
    assert found is not None
    assert "front" in found.message
    await cloud.terminate(first)
    await eventually(lambda: cloud.ips(third) == ["10.44.0.10"])
    assert cloud.reason(fourth) == "ADDRESSES_EXHAUSTED"
    await nets.update(front.id, NetworkSpec(ranges=[range_of("10.44.0.10", 3)]), "ranges")
    await eventually(lambda: cloud.ips(fourth) == ["10.44.0.12"])
    assert cloud.ips(second) == ["10.44.0.11"]


async def test_who_waits_for_two_networks_does_not_block_who_waits_for_one(nets: Nets, cloud: Cloud) -> None:
    front = await nets.create("front", "10.44.0.0/24", range_of("10.44.0.10", 1))
    back = await nets.create("back", "10.45.0.0/24", range_of("10.45.0.10", 1))
    holds_front, holds_back = await cloud.vm(front.id), await cloud.vm(back.id)
    await eventually(lambda: cloud.ips(holds_front) and cloud.ips(holds_back))
    both, one = await cloud.vm(front.id, back.id), await cloud.vm(front.id)
    await eventually(lambda: cloud.reason(both) and cloud.reason(one))
    await cloud.terminate(holds_front)
    await eventually(lambda: cloud.ips(one) == ["10.44.0.10"])
    assert cloud.reason(both) == "ADDRESSES_EXHAUSTED"
    await cloud.terminate(one, holds_back)
    await eventually(lambda: cloud.ips(both) == ["10.44.0.10", "10.45.0.10"])


async def test_a_wished_address_is_given_and_one_that_is_taken_is_waited_for(nets: Nets, cloud: Cloud) -> None:
    front = await nets.create("front", "10.44.0.0/24")
    first = await cloud.vm(front.id, ipv4="10.44.0.77")
    await eventually(lambda: cloud.ips(first) == ["10.44.0.77"])
    second = await cloud.vm(front.id, ipv4="10.44.0.77")
    await eventually(lambda: cloud.reason(second) == "ADDRESS_TAKEN")
    await cloud.terminate(first)
    await eventually(lambda: cloud.ips(second) == ["10.44.0.77"])


async def test_a_wished_mac_is_given_once(nets: Nets, cloud: Cloud) -> None:
    front = await nets.create("front", "10.44.0.0/24")
    first, second = [await cloud.vm(front.id, mac="02:aa:00:00:00:01") for _ in range(2)]
    await eventually(lambda: cloud.ips(first))
    await eventually(lambda: cloud.reason(second) == "ADDRESS_TAKEN")
    await cloud.terminate(first)
    await eventually(lambda: cloud.ips(second))


async def test_a_network_that_is_not_there_is_named_and_helps_when_it_comes(nets: Nets, cloud: Cloud) -> None:
    vm = await cloud.vm(1)
    await eventually(lambda: cloud.reason(vm) == "NETWORK_NOT_FOUND")
    assert (await nets.create("front", "10.44.0.0/24")).id == 1
    await eventually(lambda: cloud.ips(vm))


async def test_leases_stay_until_nothing_of_the_vm_is_on_a_node(nets: Nets, cloud: Cloud) -> None:
    front = await nets.create("front", "10.44.0.0/24")
    vm, other = await cloud.vm(front.id), await cloud.vm(front.id)
    await eventually(lambda: cloud.ips(vm) and cloud.ips(other))
    await cloud.status(vm, is_there=True)
    await cloud.terminate(vm, other)
    await eventually(lambda: cloud.addresses(other) is None)
    assert cloud.ips(vm)
    assert list(cloud.leases(front.id)) == cloud.ips(vm)
    await cloud.status(vm, is_there=False)
    await eventually(lambda: cloud.addresses(vm) is None and not cloud.leases(front.id))


async def test_a_terminated_vm_that_waited_is_forgotten(nets: Nets, cloud: Cloud) -> None:
    front = await nets.create("front", "10.44.0.0/24", range_of("10.44.0.10", 1))
    holds = await cloud.vm(front.id)
    await eventually(lambda: cloud.ips(holds))
    waits, waits_too = await cloud.vm(front.id), await cloud.vm(front.id)
    await eventually(lambda: cloud.reason(waits) and cloud.reason(waits_too))
    await cloud.terminate(waits, holds)
    await eventually(lambda: cloud.addresses(waits) is None and cloud.ips(waits_too))


async def test_a_lease_that_another_store_wrote_is_not_given_again(nets: Nets, cloud: Cloud) -> None:
    front = await nets.create("front", "10.44.0.0/24")
    foreign = Lease(network_id=front.id, ipv4="10.44.0.1", mac="02:00:0a:2c:00:01", vm_id=99, vm_uid="other")
    # Both at once: the pool proposes .1 while the foreign lease is on its way.
    _, vm = await asyncio.gather(
        cloud.store.commit(Txn().put(key("lease", front.id, "10.44.0.1"), foreign)), cloud.vm(front.id)
    )
    await eventually(lambda: cloud.ips(vm))
    given = cloud.leases(front.id)
    if given["10.44.0.1"].vm_uid == "other":
        assert cloud.ips(vm) == ["10.44.0.2"]


async def test_an_intent_that_changes_meanwhile_costs_nothing(nets: Nets, cloud: Cloud) -> None:
    front = await nets.create("front", "10.44.0.0/16")
    vms = await cloud.vms(200, front.id)

    async def poke(vm: int) -> None:
        entry = cloud.store.cache.get("vm", vm, "intent")
        assert entry is not None
        intent = VmIntent.FromString(entry.raw)
        intent.desired = DesiredState.DESIRED_STATE_POWERED_OFF
        await cloud.store.commit(Txn().put(entry.key, intent))

    await asyncio.gather(*(poke(vm) for vm in vms))
    await eventually(lambda: all(cloud.ips(vm) for vm in vms))
    assert len(cloud.leases(front.id)) == 200


def consistent(cloud: Cloud, network_id: int) -> None:
    """Every lease is in the addresses of the living VM it names, and every address has its lease."""
    leases = {(lease.vm_id, ip) for ip, lease in cloud.leases(network_id).items()}
    parts = {(int(vm), ip) for vm in cloud.store.cache.ids("vm") for ip in cloud.ips(int(vm))}
    assert leases == parts
    macs = [lease.mac for lease in cloud.leases(network_id).values()]
    assert len(macs) == len(set(macs))


@pytest.mark.parametrize("seed", range(5))
async def test_netsvc_may_be_stopped_at_any_moment(cloud: Cloud, start: Start, seed: int) -> None:
    chance = random.Random(seed)
    async with start() as running:
        await eventually(lambda: running.is_leader)
        front = await Nets(running).create("front", "10.44.0.0/24", range_of("10.44.0.10", 60))
    vms = await cloud.vms(80, front.id)
    for least in (chance.randint(0, 60), 0, 0):
        async with start() as running:
            await _leads(running)
            await _given(cloud, front.id, least)
            await cloud.terminate(*chance.sample(vms, 10))
    async with start() as running:
        await eventually(lambda: running.is_leader)
        alive = [vm for vm in vms if not _is_terminated(cloud, vm)]
        expected = min(60, len(alive))
        await eventually(lambda: len(cloud.leases(front.id)) == expected, what="all addresses are given that there are")
        await eventually(lambda: sum(bool(cloud.ips(vm)) for vm in alive) == expected)
    consistent(cloud, front.id)


async def test_two_who_both_believe_to_lead_give_no_address_twice(cloud: Cloud, start: Start, nets: Nets) -> None:
    front = await nets.create("front", "10.44.0.0/16")
    async with start() as second:
        vms = await cloud.vms(300, front.id)
        # The leader's key is taken away: the first finds out by being refused, the second takes over.
        await cloud.store.commit(Txn().delete("/moln/leader/netsvc"))
        vms += await cloud.vms(300, front.id)
        await eventually(lambda: all(cloud.ips(vm) for vm in vms))
        assert second.is_leader or nets.running.is_leader
    consistent(cloud, front.id)


@pytest.mark.timeout(300)
async def test_ten_thousand_random_operations_leave_every_lease_held_once(nets: Nets, cloud: Cloud) -> None:
    chance = random.Random(7)
    front = await nets.create("front", "10.44.0.0/16", range_of("10.44.1.0", 400))
    alive: list[int] = []
    operations = 0
    while operations < 10_000:
        if chance.random() < 0.55 or len(alive) < 20:
            count = chance.randint(1, 120)
            alive += await cloud.vms(count, front.id)
        else:
            gone = chance.sample(alive, min(len(alive), chance.randint(1, 150)))
            await cloud.terminate(*gone)
            alive = [vm for vm in alive if vm not in set(gone)]
            count = len(gone)
        operations += count
        assert len(cloud.leases(front.id)) <= 400
    expected = min(400, len(alive))
    await eventually(lambda: sum(bool(cloud.ips(vm)) for vm in alive) == expected)
    await eventually(lambda: len(cloud.leases(front.id)) == expected)
    consistent(cloud, front.id)
    await cloud.terminate(*alive)
    await eventually(lambda: not cloud.leases(front.id))


async def test_what_is_counted_can_be_scraped(nets: Nets, cloud: Cloud, netsvc: Running) -> None:
    front = await nets.create("front", "10.44.0.0/24", range_of("10.44.0.10", 1))
    await cloud.vms(3, front.id)
    await eventually(lambda: netsvc.metric("addresses_given_total") == 1.0)
    await eventually(lambda: netsvc.metric("waiting_vms") == 2.0)


async def _given(cloud: Cloud, network_id: int, least: int) -> None:
    await eventually(lambda: len(cloud.leases(network_id)) >= least)


async def _leads(running: Running) -> None:
    await eventually(lambda: running.is_leader)


def _is_terminated(cloud: Cloud, vm: int) -> bool:
    entry = cloud.store.cache.get("vm", vm, "intent")
    return entry is not None and entry.value.desired == DesiredState.DESIRED_STATE_TERMINATED
