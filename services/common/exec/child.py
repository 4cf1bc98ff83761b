"""A child process with three pipes, in a session of its own, of which nothing is left when it is ended or we are.

Argument vector, clean environment. Knows nothing of what is said over the pipes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from services.common.exec import guard
from services.common.exec.program import CommandError, clean_environment

_GUARD = Path(guard.__file__)
_BUFFER = 64 * 1024


class _Pipes(asyncio.subprocess.SubprocessStreamProtocol):
    """Streams, and an exit that is told when it happens, whoever still holds the other ends of the pipes."""

    def __init__(self) -> None:
        super().__init__(limit=_BUFFER, loop=asyncio.get_running_loop())
        self.exited = asyncio.Event()

    def process_exited(self) -> None:
        self.exited.set()
        super().process_exited()


class Child:
    """A running child. `start` makes one; `end` is for every way out, and may be called twice."""

    def __init__(self, transport: asyncio.SubprocessTransport, pipes: _Pipes, lifeline: int) -> None:
        assert pipes.stdin and pipes.stdout and pipes.stderr  # noqa: S101  for the type checker
        self.stdin, self.stdout, self.stderr = pipes.stdin, pipes.stdout, pipes.stderr
        self.pid = transport.get_pid() or 0
        self._transport, self._exited, self._lifeline = transport, pipes.exited, lifeline

    @classmethod
    async def start(
        cls, words: Sequence[str | Path], *, folder: Path | None = None, variables: Mapping[str, str] | None = None
    ) -> Self:
        """Starts the program `words[0]` (a path, or a name looked up in the system's folders).

        Raises CommandError where there is no such program. One that cannot be executed ends at once, with status 127.
        """
        environment = clean_environment(variables)
        program = shutil.which(words[0], path=environment["PATH"])
        if program is None:
            raise CommandError(f"{words[0]}: there is no such program, or it is not executable")
        reading, lifeline = os.pipe()
        try:
            transport, pipes = await asyncio.get_running_loop().subprocess_exec(
                _Pipes, sys.executable, "-I", "-S", _GUARD, str(reading), os.path.abspath(program),
                *map(str, words[1:]),
                cwd=folder, env=environment, start_new_session=True, pass_fds=(reading,),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
        except OSError as err:
            os.close(lifeline)
            raise CommandError(f"{words[0]} could not be started: {err.strerror or err}") from err
        except BaseException:
            os.close(lifeline)
            raise
        finally:
            os.close(reading)
        return cls(transport, pipes, lifeline)

    async def wait(self) -> str:
        """Waits for its end; how it ended, in words."""
        await self._exited.wait()
        status = self._transport.get_returncode() or 0
        if status < 0 or status > 128:
            return f"killed by signal {-status if status < 0 else status - 128}"
        return f"exit status {status}"

    @property
    def status(self) -> int | None:
        """Its exit status; negative or above 128 where a signal ended it; None while it runs."""
        return self._transport.get_returncode()

    def kill(self) -> None:
        """Kills all of its process group; what it started by setsid is its own affair."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    async def end(self) -> None:
        """Kills what is left of it, and collects it."""
        self.kill()
        try:
            await self._exited.wait()
        finally:
            self._transport.close()
            if self._lifeline >= 0:
                os.close(self._lifeline)
                self._lifeline = -1
