"""What a cache holds and what it tells its subscribers: entries and changes of entries."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from services.common.store.keys import KeyRow, key


class Entry:
    """A key with its value as of one revision. Never changes: a new value is a new entry.

    `value` is shared by all who ask: read it, never write it.
    """

    __slots__ = ("create_revision", "id", "mod_revision", "part", "raw", "row", "value")

    def __init__(
        self, row: KeyRow, id: str, part: str, value: Message | None, raw: bytes, created: int, modified: int
    ) -> None:
        self.row = row
        self.id = id
        self.part = part
        self.value: Any = value
        self.raw = raw
        self.create_revision = created
        self.mod_revision = modified

    @property
    def kind(self) -> str:
        """The kind of its object."""
        return self.row.kind

    @property
    def key(self) -> str:
        """The whole key."""
        return key(self.row.kind, self.id, self.part)

    def __repr__(self) -> str:
        return f"Entry({self.key} @{self.mod_revision}, {len(self.raw)} bytes)"


class Change:
    """One key before and after: `old` is None where it was created, `new` where it was deleted."""

    __slots__ = ("id", "kind", "new", "old", "part", "revision")

    def __init__(self, kind: str, id: str, part: str, old: Entry | None, new: Entry | None, revision: int) -> None:
        self.kind = kind
        self.id = id
        self.part = part
        self.old = old
        self.new = new
        self.revision = revision

    def __repr__(self) -> str:
        what = "created" if self.old is None else "deleted" if self.new is None else "changed"
        return f"Change({key(self.kind, self.id, self.part)} {what} @{self.revision})"
