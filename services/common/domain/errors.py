"""Errors that users see. The rpc layer turns them into google.rpc.Status; nothing else knows about gRPC here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from services.common.domain.reasons import REASONS, ErrorKind, Reason


class MolnError(Exception):
    """Something that was attempted and could not be done.

    `message` says what was attempted, what is wrong and what to do. `fields` are (path, what is wrong with it) pairs,
    with paths as in the request (`template.disks[0].image`). `metadata` is for programs.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        fields: Iterable[tuple[str, str]] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.fields = list(fields)
        self.metadata = dict(metadata or {})

    @property
    def kind(self) -> ErrorKind:
        """The sort of error, from the table of reasons."""
        return REASONS[self.reason].kind or ErrorKind.INTERNAL


def invalid(field: str, problem: str, *, reason: Reason = Reason.FIELD_INVALID) -> MolnError:
    """An error that names one field of the request: `invalid("template.memory_mib", "must be at least 1")`."""
    return MolnError(reason, f"{field}: {problem}", fields=[(field, problem)])
