"""Settings of a store. Times in seconds, sizes in bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MIB = 1024 * 1024


@dataclass(frozen=True)
class StoreSettings:
    """How to reach etcd, and the limits that the library keeps. The defaults fit the etcd that moln starts itself."""

    endpoints: tuple[str, ...]
    """`host:port` of every member, or one `unix:/path/of/socket`."""
    ca_file: Path | None = None
    """Certificates that etcd's is checked against; set it for TLS."""
    cert_file: Path | None = None
    """Certificate shown to etcd, where it asks for one."""
    key_file: Path | None = None
    """Its key."""
    user: str = ""
    """Name in etcd's own authentication; empty for none."""
    password: str = ""
    """Its password."""
    call_timeout: float = 5.0
    """Deadline of every call."""
    open_timeout: float = 30.0
    """How long `Store.open` tries to reach etcd."""
    commit_timeout: float = 15.0
    """How long a commit may take, outages of etcd included, before StoreUnavailable."""
    lease_ttl: int = 5
    """Life of a process's lease after its last renewal: this long after its death its leaderships are free."""
    tick: float = 2.0
    """How often a process writes its record."""
    stale_after: float = 10.0
    """Silence of the watch after which the cache is not believed any more."""
    quota_bytes: int = 8 * 1024 * MIB
    """etcd's --quota-backend-bytes (0, etcd's own default, is 2 GiB); since 3.6 etcd says it itself."""
    space_interval: float = 5.0
    """How often the space in use is asked for."""
    max_txn_ops: int = 16384
    """etcd's --max-txn-ops, at most; found out at the start (etcd's own default is 128)."""
    batch_members: int = 512
    """Most transactions in one batch."""
    batch_bytes: int = MIB
    """Most bytes in one batch; etcd's --max-request-bytes (by default 1.5 MiB) must be above."""
    batches_in_flight: int = 2
    """Batches that wait for etcd at the same time."""
    page_keys: int = 2000
    """Keys that are loaded at a time."""
    relist_after: int = 500_000
    """Revisions to catch up with after which listing again is cheaper."""
    keep_history: float = 600.0
    """Age of revisions before they are forgotten."""


@dataclass(frozen=True)
class ProcessInfo:
    """What this process says of itself under `/moln/process/<uuid>`."""

    kind: str
    """`api`, `scheduler`, `imagesvc`, `netsvc` …"""
    address: str = ""
    """Of its gRPC server."""
    version: str = ""
    """Of moln."""
    metrics_address: str = ""
    """Where Prometheus finds it."""
