"""Calls one after the other, in threads that the end of the process waits for never. Knows nothing of hypervisors."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

T = TypeVar("T")


class OneByOne(Executor):
    """Calls one after the other, each in a thread that the process does not wait for: one of them may never return."""

    def __init__(self) -> None:
        self._turn = threading.Lock()

    def submit(self, call: Callable[..., T], /, *arguments: Any, **named: Any) -> Future[T]:
        """Starts the call when it is its turn."""
        result: Future[T] = Future()

        def run() -> None:
            with self._turn:
                if not result.set_running_or_notify_cancel():
                    return
                try:
                    result.set_result(call(*arguments, **named))
                except BaseException as err:  # noqa: BLE001  whoever waits for the call gets it
                    result.set_exception(err)

        threading.Thread(target=run, name="libvirt-alone", daemon=True).start()
        return result
