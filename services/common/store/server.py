"""How moln runs an etcd of its own: flags and address. For the development stack and the tests; starts nothing itself.

etcd must run in its folder (mode 0700): its sockets are made there, out of reach of others, and no port is taken.
"""

from __future__ import annotations

from pathlib import Path

from services.common.store.settings import StoreSettings

MAX_REQUEST_BYTES = 8 * 1024 * 1024
QUOTA_BYTES = 8 * 1024 * 1024 * 1024
_CLIENT, _PEER = "client:0", "peer:0"
_FITTING = StoreSettings(endpoints=("",))


def socket_path(folder: Path) -> Path:
    """The socket of the etcd that runs in `folder`."""
    return folder / _CLIENT


def endpoint(folder: Path) -> str:
    """The same, for `StoreSettings.endpoints`. A socket's path has at most 107 bytes: keep `folder` short."""
    return f"unix:{socket_path(folder)}"


def command(
    folder: Path,
    *,
    program: str = "etcd",
    port: int = 0,
    quota_bytes: int = QUOTA_BYTES,
    max_request_bytes: int = MAX_REQUEST_BYTES,
) -> list[str]:
    """The command line, to be run with `folder` as working directory.

    It listens on `endpoint(folder)`, or with `port` on that port of 127.0.0.1 instead. The data are in `folder`/data.
    """
    client = f"http://127.0.0.1:{port}" if port else f"unix://{_CLIENT}"
    peer = f"unix://{_PEER}"
    flags = {
        "name": "moln",
        "data-dir": str(folder / "data"),
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"moln={peer}",
        # A single member has nobody to wait for: it leads at once after a restart instead of after a second.
        "heartbeat-interval": "20",
        "election-timeout": "200",
        "max-txn-ops": str(_FITTING.max_txn_ops),
        "max-request-bytes": str(max_request_bytes),
        "quota-backend-bytes": str(quota_bytes),
        "enable-v2": "false",
        "logger": "zap",
        "log-level": "warn",
        "log-outputs": "stderr",
    }
    return [program, *(f"--{name}={value}" for name, value in flags.items())]


def clear_sockets(folder: Path) -> None:
    """Removes the sockets that a killed etcd has left; etcd does not start over them."""
    for name in (_CLIENT, _PEER):
        (folder / name).unlink(missing_ok=True)
