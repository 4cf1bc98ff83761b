"""A local door to a guest's screen: every viewer that connects is joined to the VM through the api.

Listens on loopback or on a UNIX socket that only its owner can open; the viewer needs no password, since the api knows
who runs this. Must not know VNC.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from moln.compute.v1.vm_service_pb2 import ConnectVmScreenRequest, ConnectVmScreenResponse
from services.cli.client import Client
from services.cli.exits import CliError

METHOD = "/moln.compute.v1.VmService/ConnectVmScreen"
PIECE_BYTES = 64 * 1024


def listen_on_port(port: int) -> socket.socket:
    """A door on loopback; port 0 takes a free one. Raises CliError."""
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as err:
        raise CliError(f"cannot listen on 127.0.0.1:{port}: {err.strerror}; choose another --port, or none") from err


def listen_on_path(path: Path) -> socket.socket:
    """A door at a path that is not there yet, for its owner only. Raises CliError."""
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        door.bind(str(path))
    except OSError as err:
        raise CliError(
            f"cannot listen at {path}: {err.strerror or err}; remove what is there, or choose another"
        ) from err
    finally:
        os.umask(before)
    door.listen()
    return door


def serve(client: Client, vm_id: int, door: socket.socket, *, once: bool) -> None:
    """Joins viewers to the screen, several at a time, until interrupted; with `once`, until the first one has left.

    The first problem of the only viewer is raised; those of others end their own connection.
    """
    while True:
        viewer, _ = door.accept()
        if once:
            join(client, vm_id, viewer)
            return
        threading.Thread(target=_join_quietly, args=(client, vm_id, viewer), daemon=True).start()


def join(client: Client, vm_id: int, viewer: socket.socket) -> None:
    """Passes bytes both ways until either side ends. Raises CliError with what the api says."""
    with viewer:
        answers = client.duplex(METHOD, _requests(vm_id, viewer), ConnectVmScreenResponse)
        try:
            for answer in answers:
                viewer.sendall(answer.data)
        except OSError:
            answers.cancel()  # the viewer has gone


def _join_quietly(client: Client, vm_id: int, viewer: socket.socket) -> None:
    with contextlib.suppress(CliError):
        join(client, vm_id, viewer)


def _requests(vm_id: int, viewer: socket.socket) -> Iterator[ConnectVmScreenRequest]:
    yield ConnectVmScreenRequest(id=vm_id)
    with contextlib.suppress(OSError):
        while data := viewer.recv(PIECE_BYTES):
            yield ConnectVmScreenRequest(data=data)
