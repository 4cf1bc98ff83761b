"""What the first bytes of a file say."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.imageformat.headers import read_head


def qcow(version: int = 3, backing: int = 0, encryption: int = 0, features: int = 0) -> bytes:
    head = bytearray(4096)
    struct.pack_into(">4sIQ", head, 0, b"QFI\xfb", version, backing)
    struct.pack_into(">I", head, 32, encryption)
    struct.pack_into(">Q", head, 72, features)
    return bytes(head)


def at(place: int, sign: bytes, size: int = 65536) -> bytes:
    head = bytearray(size)
    head[place : place + len(sign)] = sign
    return bytes(head)


def test_a_qcow2_image_is_known_by_its_magic() -> None:
    assert read_head(qcow(), 4096) == ("qcow2", "")
    assert read_head(qcow(version=2), 4096) == ("qcow2", "")


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (qcow(backing=400), "backing file"),
        (qcow(features=4), "data in another file"),
        (qcow(features=2), "corrupt"),
        (qcow(encryption=1), "encrypted"),
        (qcow(version=1), "version 1"),
        (qcow()[:50], "cut off"),
        (b"KDMV" + bytes(508), "VMDK"),
        (at(0x40, b"\x7f\x10\xda\xbe"), "VDI"),
        (b"vhdxfile" + bytes(504), "VHDX"),
        (b"\x1f\x8b" + bytes(510), "gunzip"),
        (b"\xfd7zXZ\0" + bytes(506), "unxz"),
        (b"<!DOCTYPE html><html>", "text page"),
        (b"", "empty"),
    ],
)
def test_what_may_not_be_used_is_named_with_the_remedy(head: bytes, words: str) -> None:
    assert words in read_head(head, len(head)).problem


@pytest.mark.parametrize("head", [at(510, b"\x55\xaa"), at(32769, b"CD001"), at(1080, b"\x53\xef"), bytes(512)])
def test_raw_disks_are_known_by_what_they_hold(head: bytes) -> None:
    assert read_head(head, len(head)) == ("raw", "")


def test_other_bytes_are_not_recognised() -> None:
    assert read_head(b"hello, world\n", 13) == ("", "")
    assert read_head(at(510, b"\x55\xaa"), 65537) == ("", "")


@given(st.binary(max_size=2000))
def test_any_bytes_are_judged(head: bytes) -> None:
    assert read_head(head, len(head)).format in ("qcow2", "raw", "")
