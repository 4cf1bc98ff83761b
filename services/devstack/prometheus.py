"""A Prometheus of the stack's own: the configuration of deploy/prometheus, with this stack's addresses."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import yaml

from services.devstack.children import Addresses, ChildPlan
from services.devstack.errors import StackError
from services.devstack.layout import Folder
from services.devstack.plans import path_of
from services.devstack.ports import LOOPBACK, address

NAME = "prometheus"
DEPLOY = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"
INTERVAL = "5s"
"""Of scrapes and rules: who develops does not wait for a quarter of a minute."""
STOP_SECONDS = 20.0


def prometheus_plan(folder: Folder, port: int, api_metrics_port: int) -> ChildPlan:
    """Listens on loopback only. Raises StackError where it is not installed, or its configuration is not there."""
    program = path_of(NAME)
    if program is None:
        raise StackError("Prometheus is not installed: apt-get install --no-install-recommends prometheus")
    if not (DEPLOY / "prometheus.yml").exists():
        raise StackError(f"{DEPLOY} is not there: --monitoring needs a checkout of moln")
    state = folder.state_of(NAME)
    state.mkdir(exist_ok=True)
    file = folder.config / "prometheus.yml"
    file.write_text(configuration(f"http://{address(api_metrics_port)}/sd"))
    # It ends with its parent: nothing else would tell it that the parent was killed.
    guard = shutil.which("setpriv")
    guarded = (guard, "--pdeathsig", "SIGTERM", "--") if guard else ()
    return ChildPlan(
        name=NAME,
        command=(
            *guarded, str(program), f"--config.file={file}", f"--storage.tsdb.path={state}",
            f"--web.listen-address={address(port)}", "--log.level=warn",
        ),
        log=folder.log_of(NAME), ready_file=folder.ready_of(NAME), state_dir=folder.path, folder=state,
        probe=lambda: _is_ready(port), stop_seconds=STOP_SECONDS,
    )  # fmt: skip


def configuration(discovery: str) -> str:
    """The deployed configuration with this source of targets, shorter intervals, and rules that are found from here."""
    document: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    document["global"].update(scrape_interval=INTERVAL, evaluation_interval=INTERVAL)
    document["rule_files"] = [str(DEPLOY / name) for name in document["rule_files"]]
    for job in document["scrape_configs"]:
        for source in job["http_sd_configs"]:
            source.update(url=discovery, refresh_interval=INTERVAL)
    return yaml.safe_dump(document, sort_keys=False)


async def _is_ready(port: int) -> Addresses | None:
    try:
        async with asyncio.timeout(2.0):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                writer.write(b"GET /-/ready HTTP/1.0\r\n\r\n")
                status = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return None
    return {"http": f"http://{address(port)}"} if b" 200 " in status else None
