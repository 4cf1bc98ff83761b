"""Networks through a real channel, on a real etcd."""

from __future__ import annotations

import asyncio

import grpc

from moln.network.v1 import network_service_pb2 as pb
from moln.network.v1.network_pb2 import NetworkSpec
from moln.operations.v1.records_pb2 import CloudRecord
from services.common.store import Txn, key
from tests.integration.netsvc.conftest import USER, Cloud, Nets, Start, range_of
from tests.support.eventually import eventually
from tests.support.reigns import Running, as_caller, refusal


async def test_a_network_gets_an_id_an_owner_and_defaults(nets: Nets) -> None:
    made = await nets.create("front", "10.44.0.0/24", gateway="10.44.0.1")
    assert (made.id, made.spec.owner, made.spec.bridge) == (1, "ada", "mo4f2a1")
    assert (made.view.addresses_total, made.view.addresses_used) == (253, 0)
    assert (await nets.get(made.id)) == made


async def test_a_name_is_taken_once_per_owner(nets: Nets) -> None:
    await nets.create("front", "10.44.0.0/24")
    error = await refusal(nets.create("front", "10.45.0.0/24"))
    assert (error.code, error.reason) == (grpc.StatusCode.ALREADY_EXISTS, "NAME_TAKEN")
    await nets.by(USER).create("front", "10.45.0.0/24")


async def test_of_many_who_want_one_range_one_gets_it(nets: Nets) -> None:
    async def attempt(number: int) -> str:
        try:
            await nets.create(f"n{number}", "10.44.0.0/24")
        except grpc.RpcError as err:
            return (await refusal(_raise(err))).reason
        return "made"

    results = await asyncio.gather(*(attempt(number) for number in range(8)))
    assert sorted(results) == ["NETWORK_OVERLAPS"] * 7 + ["made"]


async def test_a_bridge_is_taken_once(nets: Nets) -> None:
    await nets.create("a", "10.44.0.0/24", bridge="br7")
    error = await refusal(nets.create("b", "10.45.0.0/24", bridge="br7"))
    assert (error.reason, error.fields[0][0]) == ("BRIDGE_TAKEN", "spec.bridge")


async def test_a_field_that_is_wrong_is_named(nets: Nets) -> None:
    error = await refusal(nets.create("a", "10.44.0.0/24", bridge="a-name-that-is-too-long"))
    assert error.code == grpc.StatusCode.INVALID_ARGUMENT
    assert error.fields[0][0] == "spec.bridge"
    assert "15" in error.message


async def test_the_same_request_makes_one_network(nets: Nets) -> None:
    first = await nets.create("a", "10.44.0.0/24", request_id="r1")
    assert (await nets.create("a", "10.44.0.0/24", request_id="r1")).id == first.id
    error = await refusal(nets.create("b", "10.45.0.0/24", request_id="r1"))
    assert error.reason == "REQUEST_ID_REUSED"


async def test_a_check_creates_nothing(nets: Nets, cloud: Cloud) -> None:
    request = pb.CreateNetworkRequest(spec=NetworkSpec(name="a", cidr="10.44.0.0/24"), validate_only=True)
    assert (await nets.send(request)).view.addresses_total == 254
    assert not (await nets.list()).networks


async def test_others_see_public_networks_only(nets: Nets) -> None:
    await nets.create("public", "10.44.0.0/24", is_public=True)
    hidden = await nets.create("hidden", "10.45.0.0/24")
    bob = nets.by(USER)
    assert [each.spec.name for each in (await bob.list()).networks] == ["public"]
    assert (await refusal(bob.get(hidden.id))).reason == "NETWORK_NOT_FOUND"
    assert (await refusal(bob.delete(1))).reason == "NETWORK_NOT_FOUND"
    assert (await refusal(bob.create("mine", "10.46.0.0/24", is_public=True))).reason == "ROLE_MISSING"


async def test_lists_are_filtered_and_paged(nets: Nets) -> None:
    for number in range(5):
        await nets.create(f"n{number}", f"10.{number}.0.0/24", labels={"tier": "front" if number % 2 else "back"})
    front = await nets.list(filter="label.tier=front")
    assert [each.spec.name for each in front.networks] == ["n1", "n3"]
    pages, token = [], ""
    while True:
        page = await nets.list(page_size=2, page_token=token, filter="name=n*")
        pages.append([each.spec.name for each in page.networks])
        token = page.next_page_token
        if not token:
            break
    assert pages == [["n0", "n1"], ["n2", "n3"], ["n4"]]
    assert (await refusal(nets.list(filter="nmae=x"))).reason == "FILTER_INVALID"
    assert (await refusal(nets.list(page_token="x"))).reason == "PAGE_TOKEN_INVALID"


async def test_an_update_changes_what_may_change(nets: Nets) -> None:
    made = await nets.create("a", "10.44.0.0/24", range_of("10.44.0.10", 5))
    grown = await nets.update(
        made.id, NetworkSpec(ranges=[range_of("10.44.0.10", 9)], dns=["10.0.0.1"]), "ranges", "dns"
    )
    assert (grown.view.addresses_total, list(grown.spec.dns)) == (9, ["10.0.0.1"])
    assert (await refusal(nets.update(made.id, NetworkSpec(), "ranges"))).fields[0][0] == "spec.ranges"
    assert (await refusal(nets.update(made.id, NetworkSpec(cidr="10.0.0.0/8"), "cidr"))).reason == "FIELD_IMMUTABLE"
    stale = await refusal(nets.update(made.id, NetworkSpec(), "dns", etag=made.view.etag))
    assert (stale.code, stale.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert not (await nets.update(made.id, NetworkSpec(), "dns", etag=grown.view.etag)).spec.dns


async def test_a_network_with_leases_stays(nets: Nets, cloud: Cloud) -> None:
    made = await nets.create("a", "10.44.0.0/24")
    vm = await cloud.vm(made.id)
    await eventually(lambda: cloud.ips(vm))
    error = await refusal(nets.delete(made.id))
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NETWORK_IN_USE")
    assert f"VM {vm}" in error.message
    await cloud.terminate(vm)
    await eventually(lambda: not cloud.leases(made.id))
    await nets.delete(made.id)
    assert (await refusal(nets.get(made.id))).reason == "NETWORK_NOT_FOUND"
    await nets.create("a", "10.44.0.0/24")


async def test_the_default_network_stays(nets: Nets, cloud: Cloud) -> None:
    made = await nets.create("a", "10.44.0.0/24")
    await cloud.store.commit(Txn().put(key("cloud", "settings"), CloudRecord(uid="x", default_network_id=made.id)))
    error = await eventually(lambda: refusal(nets.delete(made.id)))
    assert error.reason == "DEFAULT_OBJECT"


async def test_leases_are_listed_by_address(nets: Nets, cloud: Cloud) -> None:
    made = await nets.create("a", "10.44.0.0/24", is_public=True)
    vms = await cloud.vms(12, made.id)
    await eventually(lambda: len(cloud.leases(made.id)) == 12)
    first = await nets.leases(made.id, page_size=10)
    rest = await nets.leases(made.id, page_size=10, page_token=first.next_page_token)
    listed = [lease.ipv4 for lease in (*first.leases, *rest.leases)]
    assert listed == [f"10.44.0.{number}" for number in range(1, 13)]
    assert {lease.vm_id for lease in (*first.leases, *rest.leases)} == set(vms)
    assert (await nets.get(made.id)).view.addresses_used == 12
    assert len((await nets.by(USER).leases(made.id)).leases) == 12


async def test_only_the_leader_writes(nets: Nets, start: Start) -> None:
    async with start() as standby:
        other = Nets(standby)
        error = await refusal(other.create("a", "10.44.0.0/24"))
        assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "NOT_LEADER")
        await nets.create("a", "10.44.0.0/24")
        assert await eventually(lambda: _names(other)) == ["a"]


async def test_replies_carry_their_revision_and_requests_may_wait_for_one(nets: Nets, netsvc: Running) -> None:
    made = await nets.create("a", "10.44.0.0/24")
    metadata = as_caller(nets.caller, moln_min_revision=str(made.view.resource_version))
    call = nets.stub.GetNetwork(pb.GetNetworkRequest(id=made.id), metadata=metadata)
    await call
    trailers = dict(await call.trailing_metadata())
    assert int(trailers["moln-revision"]) >= made.view.resource_version


async def _names(nets: Nets) -> list[str]:
    return [each.spec.name for each in (await nets.list()).networks]


async def _raise(err: grpc.RpcError) -> None:
    raise err
