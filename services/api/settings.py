"""Settings of the api."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from services.common.runtime.service import log_format_option, log_level_option, metrics_address_option
from services.common.runtime.settings import option


@dataclass(frozen=True)
class Settings:
    """What can be set for the api, by TOML file and environment."""

    listen: str = option("127.0.0.1:2632", "Where clients find the gRPC API. Beyond loopback only with TLS files.")
    node_listen: str = option("127.0.0.1:2634", "Where nodes dial. Beyond loopback only with TLS files.")
    advertise: str = option("", "Address of `listen` as other machines see it; empty: the one it listens on.")
    node_advertise: str = option("", "Address of `node_listen` as nodes see it; empty: the one it listens on.")
    metrics_address: str = metrics_address_option(9632)
    etcd_endpoints: tuple[str, ...] = option(
        ("127.0.0.1:2379",), "Members of etcd as host:port, or one unix:/path/of/socket."
    )
    etcd_ca: Path | None = option(None, "Certificates that etcd's is checked against; set it for TLS.")
    etcd_cert: Path | None = option(None, "Certificate shown to etcd.")
    etcd_key: Path | None = option(None, "Key of that certificate.")
    service_secret_file: Path = option(
        Path("/etc/moln/service.secret"), "File of mode 0600 with the secret that the services of one cloud share."
    )
    state_dir: Path = option(
        Path("/var/lib/moln/api"), "Folder of this process: the administrator's token, the history."
    )
    history_max_mib: int = option(1024, "Most history that is kept on disk; the oldest goes first.", unit="MiB")
    samples_max_vms: int = option(100_000, "Most VMs whose load is kept in memory for a day, at 1.6 KiB each.")
    host_script_folder: Path | None = option(
        None, "Folder of the scripts that hosts may name as fence and power commands; empty: no script is run."
    )
    host_script_timeout_s: float = option(60.0, "Longest time that such a script may take.", unit="s")
    self_fence_margin_s: float = option(
        5.0, "Time beyond a host's own time-out after which its watchdog is taken to have reset it.", unit="s"
    )
    tls_cert: Path | None = option(None, "Certificate of this server, PEM.")
    tls_key: Path | None = option(None, "Key of that certificate, PEM.")
    tls_ca: Path | None = option(None, "Certificates that internal peers must be signed by, PEM (mutual TLS).")
    log_level: Literal["debug", "info", "warning", "error"] = log_level_option()
    log_format: Literal["text", "json"] = log_format_option()
