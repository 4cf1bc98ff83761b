"""Who calls. The api authenticates; it hands the caller on to other services in metadata beside the service secret."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason


class Capability(StrEnum):
    """What a user may be given beyond his role. Administrators have all of them."""

    VM_EXEC = "vm.exec"
    VM_RAW = "vm.raw"
    HOST_PATH = "host.path"
    PCI = "pci"


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated user, as every use case sees him."""

    user_id: int
    name: str
    is_admin: bool = False
    capabilities: frozenset[str] = frozenset()
    request_id: str = ""

    def may_see(self, owner_id: int, *, is_public: bool = False) -> bool:
        """Whether the caller may read an object of this owner."""
        return self.is_admin or is_public or owner_id == self.user_id

    def require(self, capability: Capability, what: str) -> None:
        """Raises DENIED/CAPABILITY_MISSING unless the caller has the capability. `what` is the field that needs it."""
        if self.is_admin or capability in self.capabilities:
            return
        raise MolnError(
            Reason.CAPABILITY_MISSING,
            f"{what} needs the capability {capability}, which user {self.name} does not have; "
            f"an administrator can give it: moln user update {self.name} --capability {capability}",
            metadata={"capability": str(capability)},
        )

    def to_metadata(self) -> list[tuple[str, str]]:
        """The caller as gRPC metadata for an internal call."""
        return [
            ("moln-user-id", str(self.user_id)),
            ("moln-user-name", self.name),
            ("moln-user-role", "admin" if self.is_admin else "user"),
            ("moln-user-capabilities", ",".join(sorted(self.capabilities))),
            ("moln-request-id", self.request_id),
        ]

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Caller:
        """The caller from metadata of an internal call. The service secret must have been checked before."""
        try:
            user_id = int(metadata["moln-user-id"])
            name = metadata["moln-user-name"]
        except (KeyError, ValueError) as err:
            raise MolnError(Reason.TOKEN_MISSING, "an internal call names no caller") from err
        granted = metadata.get("moln-user-capabilities", "")
        return cls(
            user_id=user_id,
            name=name,
            is_admin=metadata.get("moln-user-role") == "admin",
            capabilities=frozenset(filter(None, granted.split(","))),
            request_id=metadata.get("moln-request-id", ""),
        )
