"""Server reflection that knows methods too (`grpcurl describe pkg.Service.Method`). Only reads descriptors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf import descriptor_pool
from grpc_reflection.v1alpha._async import ReflectionServicer

SERVICE = "grpc.reflection.v1alpha.ServerReflection"


class _Symbols:
    """The process's descriptors. The pool's own index has no methods: they are found by the service they belong to."""

    def __init__(self) -> None:
        self._pool: Any = descriptor_pool.Default()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> Any:  # noqa: N802  the name that reflection asks for
        """The file that declares a symbol. Raises KeyError where none does."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            service, _, method = symbol.rpartition(".")
            self._pool.FindServiceByName(service).methods_by_name[method]
            return self._pool.FindFileContainingSymbol(service)


def reflection(services: Iterable[str]) -> ReflectionServicer:
    """The servicer of reflection over these services and itself."""
    return ReflectionServicer([*services, SERVICE], pool=_Symbols())
