"""An api as a process of its own, which can be killed, with the same state when it starts again."""

from __future__ import annotations

import sys
from pathlib import Path
from subprocess import Popen

from services.api.app import TOKEN_FILE
from services.api.settings import Settings
from services.common.runtime.process import read_ready
from tests.integration.api.running import Client
from tests.support.eventually import eventually
from tests.support.processes import Processes


class ApiProcess:
    """One api. Its output is in the log of its name."""

    def __init__(self, processes: Processes, settings: Settings) -> None:
        self._processes = processes
        self._settings = settings
        self._child: Popen[bytes] | None = None
        self.addresses: dict[str, str] = {}

    @property
    def name(self) -> str:
        """The name of its state folder."""
        return self._settings.state_dir.name

    async def start(self) -> None:
        """Starts it, and waits until it is ready."""
        ready = self._settings.state_dir.with_name(f"{self.name}.ready")
        ready.unlink(missing_ok=True)
        settings = self._settings
        environment = {
            "MOLN_READY_FILE": str(ready),
            "MOLN_API_ETCD_ENDPOINTS": ",".join(settings.etcd_endpoints),
            "MOLN_API_LISTEN": settings.listen,
            "MOLN_API_NODE_LISTEN": settings.node_listen,
            "MOLN_API_METRICS_ADDRESS": settings.metrics_address,
            "MOLN_API_SERVICE_SECRET_FILE": str(settings.service_secret_file),
            "MOLN_API_STATE_DIR": str(settings.state_dir),
        }
        root = Path(__file__).resolve().parents[3]
        command = [sys.executable, "-m", "services.api"]
        self._child = self._processes.start(command, env=environment, cwd=root, name=self.name)
        await eventually(lambda: self._is_ready(ready), what=f"{self.name} is ready")

    def _is_ready(self, file: Path) -> bool:
        assert self._child is not None
        if self._child.poll() is not None:
            raise RuntimeError(f"the api ended at once: {self._processes.output(self.name)}")
        self.addresses = read_ready(file) or {}
        return bool(self.addresses)

    def kill(self) -> None:
        """kill -9."""
        assert self._child is not None
        self._child.kill()
        self._child.wait()

    def stop(self) -> int:
        """Asks it to end; its exit status."""
        assert self._child is not None
        self._child.terminate()
        return self._child.wait()

    def admin(self) -> Client:
        """The first administrator, to be closed by the caller."""
        token = (self._settings.state_dir / TOKEN_FILE).read_text().strip()
        return Client(self.addresses["grpc"], f"Bearer {token}")
