"""The table of access: every method of the contract has its row, and what has none is open to nobody."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from services.api.access.gate import ApiGate
from services.api.access.table import ACCESS, Access
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.rpc import Call

PROTOS = Path(__file__).resolve().parents[4] / "protos"
INTERNAL = {
    "moln.image.v1.ImageDataService", "moln.node.v1.NodeDataService", "moln.etcd.v1.KV", "moln.etcd.v1.Watch",
    "moln.etcd.v1.Lease",
}  # fmt: skip


def contract() -> set[str]:
    """Every method of our protos that a client or a node can call at the api."""
    methods = set()
    for proto in (PROTOS / "moln").rglob("*_service.proto"):
        module = ".".join(proto.relative_to(PROTOS).with_suffix("").parts) + "_pb2"
        for service in importlib.import_module(module).DESCRIPTOR.services_by_name.values():
            if service.full_name not in INTERNAL:
                methods |= {f"/{service.full_name}/{method.name}" for method in service.methods}
    return methods


def test_every_method_of_the_contract_has_a_row() -> None:
    ours = {method for method in ACCESS if method.startswith("/moln.")}
    assert ours == contract()


def test_only_what_tells_nothing_is_open_without_credentials() -> None:
    assert {method.split("/")[1] for method, access in ACCESS.items() if access is Access.OPEN} == {
        "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection",
    }  # fmt: skip


def test_only_nodes_own_service_is_left_to_them() -> None:
    assert {method.split("/")[1] for method, access in ACCESS.items() if access is Access.NODE} == {
        "moln.node.v1.NodeService"
    }


@dataclass
class AnyCall:
    """As much of a call as the gate looks at before it knows the method."""

    method: str


def test_a_method_without_a_row_is_open_to_nobody() -> None:
    with pytest.raises(MolnError) as caught:
        ApiGate()(cast("Call", AnyCall("/moln.compute.v1.VmService/StealVm")))
    assert caught.value.reason == Reason.ROLE_MISSING
