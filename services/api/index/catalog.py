"""What requests need from other resources: templates, clusters, images, networks, users. Fed by the watch cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from moln.common.v1 import common_pb2
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError, invalid
from services.common.domain.reasons import Reason
from services.common.store import Change, Entry


class Named:
    """Objects of one kind by name, so that a user may say a name or an id.

    A name means the caller's own object first, then a public one (for administrators: anyone's).
    """

    def __init__(self, kind: str, missing: Reason) -> None:
        self.kind = kind
        self._missing = missing
        self._by_name: dict[str, set[str]] = {}
        self._specs: dict[str, Entry] = {}

    def apply(self, change: Change) -> None:
        """Takes a change of the part `spec`."""
        if change.old is not None:
            self._by_name.get(change.old.value.name, set()).discard(change.id)
            self._specs.pop(change.id, None)
        if change.new is not None:
            self._by_name.setdefault(change.new.value.name, set()).add(change.id)
            self._specs[change.id] = change.new

    def spec(self, object_id: int) -> Entry | None:
        """The stored spec of an id, or None."""
        return self._specs.get(f"{object_id:010d}")

    def is_taken(self, name: str, owner_id: int) -> bool:
        """Whether this owner has one of that name."""
        return any(self._specs[key].value.owner_id == owner_id for key in self._by_name.get(name, ()))

    def resolve(self, text: str, caller: Caller, field: str) -> int:
        """The id that a name or an id in a request stands for. Raises NOT_FOUND or NAME_AMBIGUOUS, naming the field."""
        found = self._visible(text, caller)
        if not found:
            problem = f"there is no {self.kind} '{text}' that {caller.name} may use"
            raise MolnError(
                self._missing, f"{field}: {problem}; see: moln {_COMMANDS[self.kind]} list", fields=[(field, problem)]
            )
        if len(found) > 1:
            ids = ", ".join(str(int(key)) for key in sorted(found))
            raise invalid(field, f"'{text}' is the name of several; say an id: {ids}", reason=Reason.NAME_AMBIGUOUS)
        return int(found[0])

    def _visible(self, text: str, caller: Caller) -> list[str]:
        keys = [f"{int(text):010d}"] if text.isdigit() and len(text) <= 10 else list(self._by_name.get(text, ()))
        specs = {key: self._specs[key].value for key in keys if key in self._specs}
        own = [key for key, spec in specs.items() if spec.owner_id == caller.user_id]
        return own or [key for key, spec in specs.items() if caller.may_see(spec.owner_id, is_public=spec.is_public)]


_NONE: Mapping[tuple[str, str], Entry] = {}
_COMMANDS = {"image": "image", "network": "net", "template": "template"}


class Catalog:
    """Everything but VMs and hosts."""

    def __init__(self) -> None:
        self.images = Named("image", Reason.IMAGE_NOT_FOUND)
        self.networks = Named("network", Reason.NETWORK_NOT_FOUND)
        self.templates = Named("template", Reason.TEMPLATE_NOT_FOUND)
        self._parts: dict[str, dict[tuple[str, str], Entry]] = {}
        self.by_token: dict[bytes, int] = {}
        self.by_user_name: dict[str, int] = {}
        self.leases: dict[int, set[str]] = {}

    def apply(self, changes: Sequence[Change]) -> None:
        """Takes changes of any kind but `vm`, `host` and `hostconn`."""
        for change in changes:
            if change.kind == "lease":
                self._lease(change)
                continue
            self._store(change)
            if change.kind in ("image", "network", "template") and change.part == "spec":
                {"image": self.images, "network": self.networks, "template": self.templates}[change.kind].apply(change)
            elif change.kind == "user":
                self._user(change)

    def get(self, kind: str, object_id: int, part: str = "spec") -> Entry | None:
        """One stored part, or None."""
        return self.of_kind(kind).get((f"{object_id:010d}", part))

    def of_kind(self, kind: str) -> Mapping[tuple[str, str], Entry]:
        """All stored parts of a kind by (id as in keys, part)."""
        return self._parts.get(kind, _NONE)

    def cloud(self) -> Entry | None:
        """What the cloud shares."""
        return self.of_kind("cloud").get(("settings", ""))

    def usage(self, owner_id: int) -> common_pb2.Amounts:
        """What an owner's VMs take."""
        entry = self.get("usage", owner_id, "")
        return entry.value.amounts if entry is not None else common_pb2.Amounts()

    def _store(self, change: Change) -> None:
        parts = self._parts.setdefault(change.kind, {})
        if change.new is None:
            parts.pop((change.id, change.part), None)
        else:
            parts[change.id, change.part] = change.new

    def _user(self, change: Change) -> None:
        user_id = int(change.id)
        if change.part == "spec":
            if change.old is not None:
                self.by_user_name.pop(change.old.value.name, None)
            if change.new is not None:
                self.by_user_name[change.new.value.name] = user_id
            return
        for token in change.old.value.token_sha256 if change.old is not None else ():
            self.by_token.pop(token, None)
        for token in change.new.value.token_sha256 if change.new is not None else ():
            self.by_token[token] = user_id

    def _lease(self, change: Change) -> None:
        network_id = int(change.id)
        if change.new is None:
            self.leases.get(network_id, set()).discard(change.part)
        else:
            self.leases.setdefault(network_id, set()).add(change.part)
