"""Writes the context disk: ISO 9660 with Joliet and Rock Ridge, labelled CONTEXT. Must not decide what is on it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from services.common.exec.program import CommandError, Limits, run_program
from services.hostagent.context.script import SCRIPT_NAME, ContextError, check_files, render_script

LABEL = "CONTEXT"
_LIMITS = Limits(seconds=60.0)


async def build_iso(path: Path, variables: Mapping[str, str], files: Mapping[str, bytes]) -> None:
    """Writes the disk to `path` (mode 0600, it may hold passwords), replacing what is there in one step.

    Raises ContextError, which names the variable, the file or what the ISO writer said.
    """
    text = render_script(variables)
    check_files(files)
    with tempfile.TemporaryDirectory(prefix=".context-", dir=path.parent) as work:
        content, fresh = Path(work) / "content", Path(work) / "context.iso"
        content.mkdir(mode=0o755)
        for name, data in {**files, SCRIPT_NAME: text.encode()}.items():
            (content / name).write_bytes(data)
            (content / name).chmod(0o644)
        await _write(fresh, content)
        fresh.chmod(0o600)
        fresh.replace(path)


async def _write(target: Path, content: Path) -> None:
    try:
        await run_program(
            ["xorriso", "-as", "mkisofs", "-quiet", "-input-charset", "utf-8", "-V", LABEL, "-J", "-joliet-long", "-R",
             "-o", target, content],
            limits=_LIMITS,
        )  # fmt: skip
    except CommandError as err:
        raise ContextError(f"the context disk cannot be written: {err}") from err
