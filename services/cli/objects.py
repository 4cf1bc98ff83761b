"""Objects of the cloud by name or id: what a kind of object is, how it is read, listed and found.

Commands work on `Resource`s, so that every kind is listed, shown and named in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from services.cli.client import Client
from services.cli.exits import CliError, Exit, usage
from services.cli.tables import Column

M = TypeVar("M", bound=Message)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
PAGE_SIZE = 1000


@dataclass(frozen=True)
class Resource(Generic[M]):
    """A kind of object."""

    word: str
    """What users call it, for example `VM`."""
    service: str
    """Its gRPC service."""
    message: type[M]
    get_request: Callable[..., Message]
    list_request: Callable[..., Message]
    list_reply: type[Message]
    items: str
    """Field of the list's answer that holds the objects."""
    name_of: Callable[[M], str]
    columns: Sequence[Column[M]]
    has_filter: bool = True
    """Its list takes a filter."""
    watch_request: Callable[..., Message] | None = None
    """Request of its watch, where it has one; else lists are polled."""
    watch_reply: type[Message] | None = None
    has_watch_filter: bool = False

    def path(self, method: str) -> str:
        """The full name of a method."""
        return f"/{self.service}/{method}"

    @property
    def _noun(self) -> str:
        return str(self.message.DESCRIPTOR.name)

    def get(self, client: Client, number: int) -> M:
        """Reads one by id."""
        return client.unary(self.path(f"Get{self._noun}"), self.get_request(id=number), self.message)

    def list(self, client: Client, condition: str = "") -> Iterator[M]:
        """Reads all that meet the filter, page by page."""
        token, settings = "", {"filter": condition} if condition else {}
        while True:
            request = self.list_request(page_size=PAGE_SIZE, page_token=token, **settings)
            answer: Any = client.unary(self.path(f"List{self._noun}s"), request, self.list_reply)
            yield from getattr(answer, self.items)
            token = answer.next_page_token
            if not token:
                return

    def find(self, client: Client, text: str) -> M:
        """The one of that id or name. Raises CliError: not found, or ambiguous, naming the ids."""
        if text.isascii() and text.isdigit():
            return self.get(client, int(text))
        if not NAME.fullmatch(text):
            raise usage(f"'{text}' is neither an id nor a name")
        found = list(self._named(client, text))
        if len(found) == 1:
            return found[0]
        if not found:
            raise CliError(f"there is no {self.word} called {text} that you may see", Exit.NOT_FOUND)
        ids = ", ".join(str(id_of(item)) for item in found)
        raise usage(f"several {self.word}s are called {text}; use one of the ids: {ids}")

    def find_all(self, client: Client, texts: Iterable[str]) -> Sequence[M]:
        """Each of these, once; nothing is done to any before all are found."""
        found = {id_of(item): item for item in (self.find(client, text) for text in texts)}
        return tuple(found.values())

    def id_of(self, client: Client, text: str) -> int:
        """The id behind a name or id, without reading the object where the id is given."""
        return int(text) if text.isascii() and text.isdigit() else id_of(self.find(client, text))

    def title(self, item: M) -> str:
        """`VM web (12)`, for messages."""
        return f"{self.word} {self.name_of(item) or '?'} ({id_of(item)})"

    def _named(self, client: Client, name: str) -> Iterator[M]:
        items = self.list(client, f"name={name}") if self.has_filter else self.list(client)
        return (item for item in items if self.name_of(item) == name)


def id_of(item: Message) -> int:
    """The id of an object."""
    number: int = getattr(item, "id")  # noqa: B009  (every resource has one; the base class does not say so)
    return number


def handles(resource: Resource[M], items: Sequence[M]) -> list[str]:
    """A word for each that commands take: the name where it is unique among them, else the id."""
    names = [resource.name_of(item) for item in items]
    seen: dict[str, int] = {}
    for name in names:
        seen[name] = seen.get(name, 0) + 1
    return [name if name and seen[name] == 1 else str(id_of(item)) for name, item in zip(names, items, strict=True)]
