"""The API as a document: every method that a client or a node can call, who may call it, and what its comment says."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from scripts.comments import comment_of
from services.api.access.table import ACCESS

Table = Callable[..., list[str]]


def api(root: Path, table: Table) -> list[str]:
    """The lines of the document."""
    lines = [
        "gRPC, on port 2632 for clients and 2634 for nodes. By reflection the same is shown by",
        "`grpcurl -plaintext -H 'authorization: Bearer TOKEN' HOST:2632 list`. Messages and fields: `moln explain`, or",
        "the files in `protos/`. ⇢ takes a stream, ⇠ answers with one, ⇄ does both.",
    ]
    for service in _services(root):
        rows = [_row(service, method) for method in service.methods]
        if any(row is not None for row in rows):
            lines += ["", f"## {service.full_name}", "", comment_of(service), ""]
            lines += table(("method", "who", "what"), [row for row in rows if row is not None])
    return lines


def _row(service: Any, method: Any) -> tuple[str, str, str] | None:
    access = ACCESS.get(f"/{service.full_name}/{method.name}")
    if access is None:
        return None
    arrow = {(False, False): "", (False, True): " ⇠", (True, False): " ⇢", (True, True): " ⇄"}
    streams = arrow[method.client_streaming, method.server_streaming]
    return f"`{method.name}`{streams}", access.value, comment_of(method)


def _services(root: Path) -> Iterator[Any]:
    for proto in sorted((root / "protos" / "moln").rglob("*_service.proto")):
        module = ".".join(proto.relative_to(root / "protos").with_suffix("").parts) + "_pb2"
        yield from importlib.import_module(module).DESCRIPTOR.services_by_name.values()
