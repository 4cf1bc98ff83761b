"""Stands between us and a script, so that nothing of the script outlives us, not even after kill -9 of this side.

Run as a program of its own: `python -I -S guard.py LIFELINE PROGRAM [ARGUMENT …]`, in a session of its own. LIFELINE is
the number of a pipe's read end whose only write end is ours. When that closes, the whole process group is killed, the
guard with it; when the script ends, the guard ends with the script's status (128 + n for signal n). It imports the
standard library alone: it is not part of the package when it runs.
"""

import os
import select
import signal
import sys
from types import FrameType

NOT_STARTED = 127


def _noted(_number: int, _frame: FrameType | None) -> None:
    """A signal handler that does nothing: the wake-up pipe tells."""


def _become(words: list[str]) -> None:
    """In the new process: the script, with the signals as a program expects them."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        os.execv(words[0], words)  # noqa: S606  by argument vector, as everything here
    except OSError as err:
        os.write(2, f"{words[0]} cannot be started: {err.strerror}\n".encode())
    os._exit(NOT_STARTED)


def main(arguments: list[str]) -> int:
    """Runs the script to its end, or kills it when the lifeline is cut."""
    lifeline, words = int(arguments[0]), arguments[1:]
    os.set_inheritable(lifeline, False)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, _noted)
    child = os.fork()
    if child == 0:
        _become(words)
    for standard in (0, 1, 2):
        os.close(standard)  # the script's alone: whoever waits for their end waits for the script
    while True:
        readable, _, _ = select.select([lifeline, woken], [], [])
        if lifeline in readable:
            os.killpg(0, signal.SIGKILL)
        os.read(woken, 64)
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
