"""The log of a console: bounded, and its newest part is what is read."""

from __future__ import annotations

from pathlib import Path

from services.hostagent.drivers.libvirt.console import DEFAULT_LOG_BYTES, read_log, trim_log


def test_the_newest_bytes_are_read(folder: Path) -> None:
    log = folder / "log"
    assert read_log(log, 10) == b""
    log.write_bytes(b"0123456789")
    assert read_log(log, 4) == b"6789"
    assert read_log(log, 0) == b"0123456789"
    log.write_bytes(b"x" * (DEFAULT_LOG_BYTES + 1))
    assert len(read_log(log, 0)) == DEFAULT_LOG_BYTES


def test_a_log_that_has_grown_too_long_keeps_its_newest_half_under_the_writer(folder: Path) -> None:
    log = folder / "log"
    assert not trim_log(log)
    with log.open("ab", buffering=0) as writer:
        writer.write(b"a" * 100 + b"b" * 50)
        assert not trim_log(log, 150)
        assert trim_log(log, 100)
        writer.write(b"c")
    assert log.read_bytes() == b"b" * 50 + b"c"
