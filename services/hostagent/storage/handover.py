"""What a node hands to the target of a move: which files, to whoever shows the ticket. Kept beside the disks.

The ticket came with the order to both nodes; here stands its digest only. Knows neither gRPC nor hypervisors.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable
from pathlib import Path

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError

from moln.compute.v1.vm_pb2 import SavedFile
from services.hostagent.storage.folders import VmFolder, replace_file


class Handover:
    """The files of one VM that are to be fetched."""

    def __init__(self, folder: VmFolder) -> None:
        self._folder = folder

    def offer(self, ticket: str, files: Iterable[SavedFile]) -> None:
        """From now on they are handed out."""
        document = {"ticket": _digest(ticket), "files": [MessageToDict(file) for file in files]}
        replace_file(self._folder.handover_file, json.dumps(document).encode(), mode=0o600)

    def withdraw(self) -> None:
        """From now on nothing is handed out. Idempotent."""
        self._folder.handover_file.unlink(missing_ok=True)

    def is_open_to(self, ticket: str) -> bool:
        """Whether it is the ticket of the move."""
        known = str(self._document().get("ticket", ""))
        return bool(known) and hmac.compare_digest(known, _digest(ticket))

    def files(self) -> list[SavedFile]:
        """What is handed out."""
        try:
            found = self._document().get("files")
            return [ParseDict(file, SavedFile()) for file in found] if isinstance(found, list) else []
        except ParseError:
            return []

    def path(self, disk_id: int, *, is_memory: bool) -> Path | None:
        """Where one of them is; None where it is not handed out."""
        for file in self.files():
            if (file.is_memory, file.disk_id) == (is_memory, 0 if is_memory else disk_id):
                return self._folder.memory if is_memory else self._folder.disk(file.disk_id, file.format)
        return None

    def _document(self) -> dict[str, object]:
        try:
            found = json.loads(self._folder.handover_file.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def _digest(ticket: str) -> str:
    return hashlib.sha256(ticket.encode()).hexdigest()
