"""A terminal on a guest's serial console: bytes both ways, raw, until the escape is typed or either side ends."""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from moln.compute.v1.vm_service_pb2 import ConsoleVmRequest, ConsoleVmResponse
from services.cli.client import Answers, Client

ESCAPE = b"\x1d"
CHUNK = 4096
SILENCE_SECONDS = 2.0


def connect(client: Client, vm_id: int) -> None:
    """Joins the terminal (or standard input and output) to the console. Returns when the user or the guest ends it."""
    typed: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    answers = client.duplex("/moln.compute.v1.VmService/ConsoleVm", _requests(vm_id, typed), ConsoleVmResponse)
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        print("connected; Ctrl-] ends", file=sys.stderr)
    reader = threading.Thread(target=_read, args=(typed, answers, is_terminal), daemon=True)
    heard = threading.Event()
    with _raw(is_terminal):
        reader.start()
        if not is_terminal:
            threading.Thread(target=_end_in_silence, args=(reader, heard, answers), daemon=True).start()
        for answer in answers:
            heard.set()
            _write(answer.data)
    if is_terminal:
        print("\nthe console is closed", file=sys.stderr)


def _requests(vm_id: int, typed: queue.SimpleQueue[bytes | None]) -> Iterator[ConsoleVmRequest]:
    yield ConsoleVmRequest(id=vm_id)
    while (data := typed.get()) is not None:
        yield ConsoleVmRequest(data=data)


def _read(typed: queue.SimpleQueue[bytes | None], answers: Answers[ConsoleVmResponse], is_terminal: bool) -> None:
    """Passes on what is typed. The escape ends everything; the end of a file only ends the sending."""
    while data := os.read(sys.stdin.fileno(), CHUNK):
        if is_terminal and ESCAPE in data:
            answers.cancel()
            return
        typed.put(data)
    typed.put(None)


def _end_in_silence(reader: threading.Thread, heard: threading.Event, answers: Answers[ConsoleVmResponse]) -> None:
    """Nothing more is typed: when the guest has answered what was, there is nothing to wait for."""
    reader.join()
    while heard.wait(SILENCE_SECONDS):
        heard.clear()
    answers.cancel()


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


@contextmanager
def _raw(is_terminal: bool) -> Iterator[None]:
    """The terminal hands on every key as it is, Ctrl-C too; as it was when we are done."""
    if not is_terminal:
        yield
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
