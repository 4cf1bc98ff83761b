"""Where a service may listen: on loopback or a UNIX socket as it is, anywhere else only with TLS files."""

from __future__ import annotations

import errno
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from services.common.runtime.settings import SettingsError


@dataclass(frozen=True)
class TlsFiles:
    """PEM files. With `authority` the other side must show a certificate that it signed (mutual TLS)."""

    certificate: Path
    key: Path
    authority: Path | None = None

    def read(self) -> tuple[bytes, bytes, bytes | None]:
        """(certificate, key, authority); raises SettingsError that names the file which cannot be read."""
        authority = _read(self.authority) if self.authority is not None else None
        return _read(self.certificate), _read(self.key), authority

    def server_context(self) -> ssl.SSLContext:
        """For servers on the standard library's streams."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.read()
        try:
            context.load_cert_chain(self.certificate, self.key)
            if self.authority is not None:
                context.load_verify_locations(self.authority)
                context.verify_mode = ssl.CERT_REQUIRED
        except ssl.SSLError as err:
            raise SettingsError(f"{self.certificate}, {self.key}: not a PEM certificate and its key ({err})") from err
        return context


def tls_files(certificate: Path | None, key: Path | None, authority: Path | None = None) -> TlsFiles | None:
    """The files that settings name, None where they name none; raises SettingsError where one of a pair is missing."""
    if certificate is None and key is None and authority is None:
        return None
    if certificate is None or key is None:
        raise SettingsError("tls_certificate and tls_key belong together: set both")
    return TlsFiles(certificate, key, authority)


@dataclass(frozen=True)
class Address:
    """A place to listen at or to dial: `host` and `port`, or the path of a UNIX socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        if self.path or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def refused(self, err: OSError) -> SettingsError:
        """The error to show when the system refuses this address."""
        if err.errno == errno.EADDRINUSE:
            return SettingsError(f"{self} is in use: another process listens there; stop it or choose another port")
        return SettingsError(f"cannot listen on {self}: {err.strerror or err}")


def parse_address(text: str) -> Address:
    """Reads "host:port", "[ipv6]:port" or "unix:/path"; raises SettingsError for anything else."""
    if text.startswith("unix:"):
        return Address(path=text.removeprefix("unix:").replace("//", "/"))
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise SettingsError(f"{text!r} is not an address: write 127.0.0.1:2632, [::1]:2632 or unix:/path/to/socket")
    return Address(host=host, port=int(port))


def check_address(text: str, tls: TlsFiles | None, *, what: str) -> Address:
    """The address to listen at. Raises SettingsError where others could reach it and there are no TLS files."""
    address = parse_address(text)
    if not address.is_local and tls is None:
        raise SettingsError(
            f"{what} {address} can be reached from other machines: give TLS files, or listen on 127.0.0.1"
        )
    return address


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as err:
        raise SettingsError(f"{path}: cannot be read: {err.strerror or err}") from err
