"""Kernel modules in the order in which they must be loaded."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from services.devstack.guestimage.errors import GuestImageError
from services.devstack.guestimage.modules import ModuleTree


def module(depends: str) -> bytes:
    return b"\x7fELF\0license=GPL\0depends=" + depends.encode() + b"\0name=x\0"


@pytest.fixture
def tree(folder: Path) -> ModuleTree:
    kernel = folder / "lib" / "modules" / "6.1" / "kernel"
    kernel.mkdir(parents=True)
    (kernel / "virtio.ko").write_bytes(module(""))
    (kernel / "virtio-ring.ko.xz").write_bytes(lzma.compress(module("virtio")))
    (kernel / "virtio_blk.ko").write_bytes(module("virtio_ring,virtio,built_in"))
    (kernel / "lost.ko").write_bytes(module("nowhere"))
    (folder / "lib" / "modules" / "6.1" / "modules.builtin").write_text("kernel/fs/built-in.ko\n")
    return ModuleTree([folder])


def test_dependencies_come_first_and_once_and_what_is_built_in_is_left_out(tree: ModuleTree) -> None:
    found = tree.closure(["virtio_blk", "virtio-ring", "built_in"])
    assert [entry.name for entry in found] == ["virtio", "virtio_ring", "virtio_blk"]
    assert found[1].content == module("virtio")


def test_a_module_that_is_missing_is_named(tree: ModuleTree) -> None:
    with pytest.raises(GuestImageError, match="no module nowhere"):
        tree.closure(["lost"])
