"""Real parts (etcd, QEMU, libvirt …): where one does not work here, its tests are skipped with the reason.

`MOLN_REQUIRE_REAL=1` turns each such skip into a failure: it is set where the real parts are known to work.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import pytest

# name -> why it is missing; printed at the end of the run (tests/conftest.py).
MISSING: dict[str, str] = {}
_known: dict[str, str | None] = {}

Probe = Callable[[], str | None]


def real_part(name: str, probe: Probe) -> None:
    """Returns where the part works; otherwise skips the calling test, or fails it where real parts are required.

    `probe` returns None where the part works and the reason where it does not; it runs once per `name` and run.
    """
    if name not in _known:
        _known[name] = probe()
    reason = _known[name]
    if reason is None:
        return
    MISSING[name] = reason
    if os.environ.get("MOLN_REQUIRE_REAL") == "1":
        pytest.fail(f"real part {name} is required and does not work: {reason}", pytrace=False)
    pytest.skip(f"no real {name}: {reason}")


def programs(*names: str) -> Probe:
    """A probe: are these programs on PATH (the administrator's folders included)?"""

    def probe() -> str | None:
        path = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
        absent = [name for name in names if shutil.which(name, path=path) is None]
        return f"not installed: {', '.join(absent)}" if absent else None

    return probe


def needs_root() -> str | None:
    """A probe: does the run have root's rights?"""
    return None if os.geteuid() == 0 else "needs root"
