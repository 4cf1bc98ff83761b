"""Stubs are made from the contract, once, and a fault leaves the last good ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import proto

GOOD = """
syntax = "proto3";
package moln.sample.v1;
import "google/rpc/status.proto";
import "google/protobuf/timestamp.proto";
// A thing.
message Thing {
  // Its status.
  google.rpc.Status status = 1;
  // When it was made.
  google.protobuf.Timestamp created = 2;
}
"""


@pytest.fixture
def contract(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    source = folder / "protos"
    file = source / "moln" / "sample" / "v1" / "thing.proto"
    file.parent.mkdir(parents=True)
    file.write_text(GOOD)
    monkeypatch.setattr(proto, "SOURCE", source)
    monkeypatch.setattr(proto, "TARGET", source / "gen")
    return file


def test_stubs_types_packages_and_descriptors_are_made_once(contract: Path) -> None:
    assert proto.main() == 0
    made = proto.TARGET / "moln"
    for name in (
        "__init__.py",
        "py.typed",
        "sample/v1/__init__.py",
        "sample/v1/thing_pb2.py",
        "sample/v1/thing_pb2.pyi",
    ):
        assert (made / name).exists()
    assert b" A thing." in (proto.TARGET / "moln.binpb").read_bytes()
    before = (made / "sample/v1/thing_pb2.py").stat().st_mtime_ns
    assert proto.main() == 0
    assert (made / "sample/v1/thing_pb2.py").stat().st_mtime_ns == before


def test_what_is_gone_from_the_contract_is_gone_from_the_stubs(contract: Path) -> None:
    proto.main()
    contract.rename(contract.with_name("other.proto"))
    assert proto.main() == 0
    assert not (proto.TARGET / "moln/sample/v1/thing_pb2.py").exists()
    assert (proto.TARGET / "moln/sample/v1/other_pb2.py").exists()


def test_a_fault_leaves_the_last_good_stubs(contract: Path, capfd: pytest.CaptureFixture[str]) -> None:
    proto.main()
    contract.write_text(GOOD.replace("message Thing {", "message Thing"))
    assert proto.main() == 1
    assert "thing.proto" in capfd.readouterr().err
    assert (proto.TARGET / "moln/sample/v1/thing_pb2.py").exists()
    assert [path.name for path in proto.SOURCE.iterdir() if path.name.startswith(".gen")] == []
