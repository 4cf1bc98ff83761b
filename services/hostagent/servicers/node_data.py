"""NodeDataService: files of VMs that have let go, for the target of their move, who shows the ticket of the move."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable

from moln.node.v1 import node_service_pb2_grpc
from moln.node.v1.node_service_pb2 import FetchFileRequest, FetchFileResponse
from services.common.domain.errors import MolnError, invalid
from services.common.domain.reasons import Reason
from services.common.rpc import Call, current_call
from services.hostagent.storage.fetch import TICKET_HEADER
from services.hostagent.storage.folders import NodeFolders
from services.hostagent.storage.handover import Handover

PIECE_BYTES = 1 << 20
PREFIX = "/moln.node.v1.NodeDataService/"


def gate(call: Call) -> None:
    """Files are handed out by tickets, which the servicer checks; nothing else is open to anybody."""
    if not call.method.startswith(PREFIX):
        raise MolnError(Reason.ROLE_MISSING, "only files of moving VMs are served here")


class NodeDataServicer(node_service_pb2_grpc.NodeDataServiceServicer):
    """Sends files in pieces. `runs` says whether a guest's vCPUs exist: then its files are not handed out."""

    def __init__(self, folders: NodeFolders, runs: Callable[[str], Awaitable[bool]]) -> None:
        self._folders, self._runs = folders, runs

    async def FetchFile(self, request: FetchFileRequest, context: object) -> AsyncIterator[FetchFileResponse]:
        handle = await self._opened(request)
        try:
            while data := await asyncio.to_thread(os.read, handle, PIECE_BYTES):
                yield FetchFileResponse(data=data)
        finally:
            os.close(handle)

    async def _opened(self, request: FetchFileRequest) -> int:
        try:
            handover = Handover(self._folders.vm(request.uid))
        except ValueError as err:
            raise invalid("uid", "is not a VM's unique id") from err
        if not handover.is_open_to(current_call().header(TICKET_HEADER)):
            raise MolnError(Reason.TICKET_INVALID, f"the ticket for VM {request.vm_id} is wrong, or it does not move")
        if await self._runs(request.uid):
            raise MolnError(Reason.STATE_FORBIDS, f"VM {request.vm_id} runs on this host: its files change")
        path = handover.path(request.disk_id, is_memory=request.is_memory)
        if path is None:
            raise MolnError(Reason.VM_NOT_FOUND, f"VM {request.vm_id} has no such file on this host")
        return await asyncio.to_thread(_open, path, request.offset)


def _open(path: os.PathLike[str], offset: int) -> int:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as err:
        raise MolnError(Reason.VM_NOT_FOUND, f"{path} cannot be read: {err.strerror or err}") from err
    if offset > os.fstat(handle).st_size:
        os.close(handle)
        raise invalid("offset", "is beyond the file's end")
    os.lseek(handle, offset, os.SEEK_SET)
    return handle
