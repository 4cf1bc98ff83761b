"""`python -m services.devstack up|down|status|doctor`: what `moln dev` and `moln doctor` start."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from typing import Any

from services.devstack import control
from services.devstack.doctor import examine
from services.devstack.errors import FAILED, StackError
from services.devstack.layout import folder_of
from services.devstack.stack import Wishes, run_stack
from services.devstack.status_text import status_lines


def _say(text: str) -> None:
    print(f"moln: {text}", flush=True)


async def _up(arguments: argparse.Namespace) -> int:
    folder = folder_of(arguments.state)
    if arguments.detach:
        await control.start_detached(folder, _flags(arguments), _say)
        return 0
    wishes = Wishes(
        arguments.sim_hosts, arguments.keep_guests, arguments.real_host, arguments.name, arguments.monitoring
    )
    await run_stack(folder, wishes, _say)
    return 0


def _flags(arguments: argparse.Namespace) -> list[str]:
    """The same wishes, for the supervisor that is started on its own."""
    return [
        *("--sim-hosts", str(arguments.sim_hosts)),
        *(("--keep-guests",) if arguments.keep_guests else ()),
        *_real_host_flag(arguments.real_host),
        *(("--name", arguments.name) if arguments.name else ()),
        *(("--monitoring",) if arguments.monitoring else ()),
    ]


def _real_host_flag(wish: bool | None) -> list[str]:
    return [] if wish is None else ["--real-host" if wish else "--no-real-host"]


async def _down(arguments: argparse.Namespace) -> int:
    await control.end(folder_of(arguments.state), _say, is_purged=arguments.purge)
    return 0


async def _status(arguments: argparse.Namespace) -> int:
    found = control.describe(folder_of(arguments.state) if arguments.state else None)
    if arguments.output == "json":
        print(json.dumps(found, indent=2))
        return 0
    for line in status_lines(found):
        print(line)
    return 0


async def _doctor(arguments: argparse.Namespace) -> int:
    folder = folder_of(arguments.state) if arguments.state else None
    return await examine(folder, print, fixes=arguments.fix)


def _parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m services.devstack", description="A whole cloud on this machine.")
    verbs = parser.add_subparsers(required=True)
    up = _verb(verbs, "up", _up)
    up.add_argument("--detach", "-d", action="store_true")
    up.add_argument("--sim-hosts", type=int, default=0)
    up.add_argument("--keep-guests", action="store_true")
    up.add_argument("--real-host", action=argparse.BooleanOptionalAction)
    up.add_argument("--name", default="")
    up.add_argument("--monitoring", action="store_true")
    down = _verb(verbs, "down", _down)
    down.add_argument("--purge", action="store_true")
    status = _verb(verbs, "status", _status)
    status.add_argument("--output", choices=("text", "json"), default="text")
    doctor = _verb(verbs, "doctor", _doctor)
    doctor.add_argument("--fix", action="store_true")
    return parser.parse_args(words)


def _verb(verbs: Any, name: str, run: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name)
    parser.set_defaults(run=run)
    parser.add_argument("--state", metavar="FOLDER")
    return parser


def main(words: list[str]) -> int:
    """Runs one verb and returns the exit code; what fails ends with one line."""
    arguments = _parse(words)
    try:
        code: int = asyncio.run(arguments.run(arguments))
        return code
    except StackError as err:
        return _fail(err)
    except ExceptionGroup as group:
        known, unknown = group.split(StackError)
        if known is None or unknown is not None:
            raise
        return _fail(known.exceptions[0])
    except KeyboardInterrupt:
        return 130


def _fail(error: Exception) -> int:
    print(f"moln: {error}", file=sys.stderr, flush=True)
    return error.code if isinstance(error, StackError) else FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
