"""Settings of the scheduler: every option with its default."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from services.common.obs.logs import LogFormat, LogLevel
from services.common.runtime import TlsFiles, option
from services.common.runtime.service import log_format_option, log_level_option, metrics_address_option
from services.common.runtime.settings import SettingsError
from services.common.store import StoreSettings
from services.scheduler.core.policies import Policies, policies_from_words


@dataclass(frozen=True)
class SchedulerSettings:
    """The settings; see each option's text."""

    etcd_endpoints: tuple[str, ...] = option(
        ("127.0.0.1:2379",), "Where etcd is: host:port of every member, or one unix:/path."
    )
    etcd_ca: Path | None = option(None, "Certificates that etcd's is checked against; set it for TLS.")
    etcd_cert: Path | None = option(None, "Certificate that is shown to etcd.")
    etcd_key: Path | None = option(None, "Key of that certificate.")
    listen: str = option("127.0.0.1:2637", "Where other services reach this one (port 0: any free one).")
    advertise: str = option("", "Address of `listen` as other machines see it; empty: the one it listens on.")
    service_secret_file: Path = option(
        Path("/etc/moln/service.secret"), "File with the secret that moln's services share; readable by its owner only."
    )
    policies: tuple[str, ...] = option(
        (),
        "How hosts are ranked where neither VM nor cluster says: packing, striping, load-aware, preference, or several "
        "with weights, as packing=2. Empty: fewest VMs first, then most free memory.",
    )
    tls_cert: Path | None = option(None, "Certificate of this server; needed beyond loopback.")
    tls_key: Path | None = option(None, "Key of that certificate.")
    tls_ca: Path | None = option(None, "Certificates that callers' are checked against: mutual TLS.")
    metrics_address: str = metrics_address_option(9633)
    log_level: LogLevel = log_level_option()
    log_format: LogFormat = log_format_option()

    def store(self) -> StoreSettings:
        """The part that the store library reads."""
        return StoreSettings(
            endpoints=self.etcd_endpoints, ca_file=self.etcd_ca, cert_file=self.etcd_cert, key_file=self.etcd_key
        )

    def ranked_by(self) -> Policies:
        """The policies. Raises SettingsError, which names the setting."""
        try:
            return policies_from_words(self.policies)
        except ValueError as err:
            raise SettingsError(f"policies: {err}") from err

    def tls(self) -> TlsFiles | None:
        """The server's TLS files; None where none are set."""
        if self.tls_cert is None or self.tls_key is None:
            return None
        return TlsFiles(self.tls_cert, self.tls_key, self.tls_ca)
