"""Runs one program to its end: argument vector, clean environment, bounded time, output, memory and CPU.

What a guest or a user wrote may stand in an argument, never in a command line: there is no shell here, and no way to
ask for one. Long-running programs (etcd, libvirtd, QEMU) are not for this module.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
KEPT_VARIABLES = ("HOME", "TMPDIR", "PATH")
# Which package brings a program, where the name does not say it.
PACKAGES = {
    "qemu-img": "qemu-utils", "qemu-nbd": "qemu-utils", "qemu-system-x86_64": "qemu-system-x86", "ip": "iproute2",
    "busybox": "busybox-static", "mcopy": "mtools", "dnsmasq": "dnsmasq-base", "ssh": "openssh-client",
    "nft": "nftables", "iptables-save": "iptables", "iptables-restore": "iptables", "etcd": "etcd-server",
    "libvirtd": "libvirt-daemon",
}  # fmt: skip
_CHUNK = 64 * 1024


@dataclass(frozen=True)
class Limits:
    """Bounds of one run. `memory_bytes` bounds the address space, `cpu_seconds` the CPU time; None: no bound."""

    seconds: float = 60.0
    output_bytes: int = 1024 * 1024
    memory_bytes: int | None = None
    cpu_seconds: int | None = None


@dataclass(frozen=True)
class Completed:
    """How a program ended. `status` is negative where a signal ended it."""

    arguments: tuple[str, ...]
    status: int
    output: bytes
    errors: bytes

    @property
    def text(self) -> str:
        """The output as text; bytes that are no UTF-8 are replaced."""
        return self.output.decode(errors="replace")

    @property
    def error_text(self) -> str:
        """The last line that the program wrote to standard error: usually the one that says what is wrong."""
        lines = [line.strip() for line in self.errors.decode(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else ""


class CommandError(Exception):
    """A program could not be run, failed, or passed a limit. The text names the program and what it said."""

    def __init__(self, message: str, completed: Completed | None = None) -> None:
        super().__init__(message)
        self.completed = completed


async def run_program(
    arguments: Sequence[str | Path],
    *,
    limits: Limits | None = None,
    input: bytes = b"",
    folder: Path | None = None,
    variables: Mapping[str, str] | None = None,
    check: bool = True,
) -> Completed:
    """Runs `arguments` and returns how it ended; the program sees PATH, HOME, TMPDIR, LANG=C.UTF-8 and `variables`.

    With `check` a status other than 0 raises CommandError; so do, always, a program that is not there and one that
    passes a limit. When this returns, raises or is cancelled, nothing is left of the process group it started.
    """
    limits = limits or Limits()
    words = tuple(str(word) for word in arguments)
    process = await _start(words, limits, folder, clean_environment(variables), input)
    try:
        async with asyncio.timeout(limits.seconds):
            output, errors = await _hear(process, limits.output_bytes)
            status = await process.wait()
    except TimeoutError as err:
        raise CommandError(f"{_name(words)} did not end within {limits.seconds:g} s and was stopped") from err
    finally:
        await _end(process)
    if max(len(output), len(errors)) > limits.output_bytes:
        raise CommandError(f"{_name(words)} wrote more than {limits.output_bytes} bytes and was stopped")
    completed = Completed(words, status, output, errors)
    if check and status != 0:
        raise CommandError(_failure(completed), completed)
    return completed


async def _start(
    words: tuple[str, ...], limits: Limits, folder: Path | None, environment: dict[str, str], input: bytes
) -> asyncio.subprocess.Process:
    program = shutil.which(words[0], path=environment["PATH"])
    if program is None:
        raise CommandError(_not_found(words[0]))
    try:
        with _file_of(input) as stdin:
            return await asyncio.create_subprocess_exec(
                *_limiter(limits), program, *words[1:], cwd=folder, env=environment, start_new_session=True,
                stdin=stdin, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
    except OSError as err:
        raise CommandError(f"{words[0]} could not be started: {err.strerror or err}") from err


@contextlib.contextmanager
def _file_of(input: bytes) -> Iterator[int]:
    """A file in memory: it needs no feeding, and a program can open /dev/stdin, which a socket does not allow."""
    handle = os.memfd_create("input")
    try:
        with open(handle, "wb", closefd=False) as file:
            file.write(input)
        os.lseek(handle, 0, os.SEEK_SET)
        yield handle
    finally:
        os.close(handle)


def _limiter(limits: Limits) -> list[str]:
    """prlimit sets the limits in the new process itself, before the program starts: nothing runs without them."""
    bounds = []
    if limits.memory_bytes is not None:
        bounds.append(f"--as={limits.memory_bytes}")
    if limits.cpu_seconds is not None:
        bounds.append(f"--cpu={limits.cpu_seconds}")
    return ["prlimit", *bounds, "--"] if bounds else []


def clean_environment(variables: Mapping[str, str] | None) -> dict[str, str]:
    """PATH with the system's folders, HOME, TMPDIR, LANG=C.UTF-8 and `variables`: nothing else reaches a child."""
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    folders = [part for part in kept.get("PATH", "").split(":") if part]
    path = ":".join([*folders, *(folder for folder in SYSTEM_FOLDERS if folder not in folders)])
    return {**kept, "PATH": path, "LANG": "C.UTF-8", **(variables or {})}


async def _hear(process: asyncio.subprocess.Process, most: int) -> tuple[bytes, bytes]:
    """Reads both outputs at once, so that none of the pipes can fill up and block."""
    async with asyncio.TaskGroup() as group:
        output = group.create_task(_read(process, process.stdout, most))
        errors = group.create_task(_read(process, process.stderr, most))
    return output.result(), errors.result()


async def _read(process: asyncio.subprocess.Process, stream: asyncio.StreamReader | None, most: int) -> bytes:
    """All of `stream`; where it passes `most` bytes the program is killed, and what it still wrote is not kept.

    It is read to its end in any case: asyncio tells the end of a process only when its pipes have been emptied.
    """
    collected = bytearray()
    while stream is not None and (chunk := await stream.read(_CHUNK)):
        if len(collected) > most:
            continue
        collected += chunk
        if len(collected) > most:
            _kill(process)
    return bytes(collected)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kills what is left of the program's process group and collects the program."""
    _kill(process)
    await process.wait()


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _name(words: tuple[str, ...]) -> str:
    """The program and its first word that is no option: "qemu-img info"."""
    verb = words[1] if len(words) > 1 and words[1].isalpha() else ""
    return f"{Path(words[0]).name} {verb}".strip()


def _not_found(program: str) -> str:
    package = PACKAGES.get(program, program)
    return f"{program} is not installed: apt-get install {package}"


def _failure(completed: Completed) -> str:
    ending = f"exit status {completed.status}" if completed.status >= 0 else f"killed by signal {-completed.status}"
    said = f": {completed.error_text}" if completed.error_text else ""
    return f"{_name(completed.arguments)} failed ({ending}){said}"
