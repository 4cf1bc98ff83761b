"""Pictures of screens: a PPM becomes a PNG that holds the same pixels, and rubbish is refused."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.hostagent.drivers.libvirt.picture import PNG_SIGNATURE, as_png


def chunks(png: bytes) -> dict[bytes, bytes]:
    """The parts of a PNG; their checksums are checked."""
    found, at = {}, len(PNG_SIGNATURE)
    while at < len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        kind, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        assert struct.unpack(">I", png[at + 8 + size : at + 12 + size]) == (zlib.crc32(kind + body),)
        found[kind] = body
        at += 12 + size
    return found


@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_a_ppm_becomes_a_png_of_the_same_pixels(width: int, height: int, data: st.DataObject) -> None:
    pixels = data.draw(st.binary(min_size=width * height * 3, max_size=width * height * 3))
    made = as_png(b"P6\n# by a hypervisor\n%d %d\n255\n" % (width, height) + pixels)
    parts = chunks(made.png)
    assert (made.width, made.height) == (width, height)
    assert list(parts) == [b"IHDR", b"IDAT", b"IEND"]
    assert parts[b"IHDR"] == struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    lines = zlib.decompress(parts[b"IDAT"])
    stride = width * 3 + 1
    assert b"".join(lines[row * stride + 1 : (row + 1) * stride] for row in range(height)) == pixels
    assert as_png(made.png) == made, "what is PNG already stays"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GIF89a",
        b"P5\n1 1\n255\n\0",
        b"P6\n2 2\n255\nshort",
        b"P6\n0 9\n255\n",
        b"P6\n99999 99999\n255\n",
        PNG_SIGNATURE,
    ],
)
def test_what_is_no_whole_picture_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="picture"):
        as_png(data)
