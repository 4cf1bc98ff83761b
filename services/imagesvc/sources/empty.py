"""Makes an empty image."""

from __future__ import annotations

from pathlib import Path

from services.common.domain.reasons import Reason
from services.common.exec import CommandError, Limits, run_program
from services.imagesvc.sources.failure import SourceFailed

_LIMITS = Limits(seconds=60.0, memory_bytes=1 << 30, cpu_seconds=30)


async def make_empty(path: Path, form: str, size_mib: int) -> None:
    """Writes an empty image; what stands at `path` is replaced. Raises SourceFailed."""
    words = ["qemu-img", "create", "-q", "-f", form, str(path), f"{size_mib}M"]
    try:
        await run_program(words, limits=_LIMITS)
    except CommandError as err:
        raise SourceFailed(Reason.IMAGE_INVALID, f"an empty image cannot be made: {err}", is_final=True) from err
