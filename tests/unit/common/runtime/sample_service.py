"""A small service for tests of the frame: run as a process, told by its settings how to behave."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal

from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.obs.logs import LogFormat, LogLevel
from services.common.runtime import Background, Run, option, run_service
from services.common.runtime.service import log_format_option, log_level_option, metrics_address_option


@dataclass(frozen=True)
class Settings:
    """What the sample can be told."""

    log_format: LogFormat = log_format_option()
    log_level: LogLevel = log_level_option()
    metrics_address: str = metrics_address_option(0)
    behaviour: Literal["serve", "refuse", "defect", "task_refuses", "end"] = option("serve", "What to do.")


async def main(settings: Settings, run: Run) -> None:
    """Behaves as told."""

    async def refuse() -> None:
        raise MolnError(Reason.STORE_UNAVAILABLE, "no etcd at 127.0.0.1:1; start it")

    if settings.behaviour == "refuse":
        await refuse()
    if settings.behaviour == "defect":
        raise KeyError("boom")
    async with Background() as background:
        if settings.behaviour == "task_refuses":
            background.start(refuse(), name="refuse")
        run.ready({"grpc": "127.0.0.1:1"})
        if settings.behaviour != "end":
            await run.stopped()
        run.log.info("loops stopped")


if __name__ == "__main__":
    sys.exit(run_service("sample", Settings, main))
