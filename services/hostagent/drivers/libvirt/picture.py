"""Turns the picture of a screen that a hypervisor hands out (PPM, or PNG already) into PNG. Pure."""

from __future__ import annotations

import re
import struct
import zlib
from typing import NamedTuple

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_PIXELS = 64 * 1024 * 1024
_PPM = re.compile(rb"P6\s+(?:#[^\n]*\n\s*)*(\d{1,5})\s+(\d{1,5})\s+255\s")
_RGB, _BITS = 2, 8
_LEVEL = 6


class Picture(NamedTuple):
    """A picture as PNG."""

    png: bytes
    width: int
    height: int


def as_png(data: bytes) -> Picture:
    """Raises ValueError for what is neither PNG nor a whole PPM of 8 bits a colour."""
    if data.startswith(PNG_SIGNATURE):
        return Picture(data, *_size_of_png(data))
    found = _PPM.match(data)
    if found is None:
        raise ValueError("the hypervisor's picture is neither PPM nor PNG")
    width, height = int(found[1]), int(found[2])
    pixels = memoryview(data)[found.end() :]
    if not 0 < width * height <= MAX_PIXELS or len(pixels) < width * height * 3:
        raise ValueError(f"the hypervisor's picture of {width} × {height} is not whole, or too large")
    return Picture(_encode(pixels, width, height), width, height)


def _size_of_png(data: bytes) -> tuple[int, int]:
    if len(data) < 24 or data[12:16] != b"IHDR":
        raise ValueError("the hypervisor's picture is a PNG without a head")
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def _encode(pixels: memoryview, width: int, height: int) -> bytes:
    stride = width * 3
    packer = zlib.compressobj(_LEVEL)
    packed = [packer.compress(b"\0" + pixels[row * stride : (row + 1) * stride]) for row in range(height)]
    packed.append(packer.flush())
    head = struct.pack(">IIBBBBB", width, height, _BITS, _RGB, 0, 0, 0)
    chunks = (_chunk(b"IHDR", head), _chunk(b"IDAT", b"".join(packed)), _chunk(b"IEND", b""))
    return PNG_SIGNATURE + b"".join(chunks)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
