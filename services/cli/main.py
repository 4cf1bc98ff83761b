"""The entry of the `moln` command: runs one command and turns what went wrong into a line and an exit code.

Imports nothing that a command may not need: `moln version` answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from services.cli.command_line import LazyGroup, cloud_option
from services.cli.exits import CliError, Exit
from services.cli.session import Session

COMMANDS = {
    "vm": "Virtual machines: create, list, change their state, look inside.",
    "template": "Named templates of virtual machines.",
    "image": "Images that disks are made from.",
    "net": "Virtual networks and their leases.",
    "datastore": "Where images are kept.",
    "host": "Hosts that virtual machines are placed on.",
    "cluster": "Named parts of the hosts.",
    "scheduler": "Where virtual machines go, and why.",
    "user": "Users, their tokens and limits.",
    "top": "What hosts and virtual machines take, live.",
    "status": "Services, hosts, capacity, and what is wrong.",
    "events": "What happened in the cloud.",
    "accounting": "What virtual machines took, by owner.",
    "explain": "What a field of a template or a resource means.",
    "simulate": "A workload over virtual time: judge a policy of placement before it is used.",
    "dev": "A whole cloud on this machine.",
    "doctor": "What is left over or wrong on this machine, with the remedy.",
    "completion": "Completion for bash, zsh and fish.",
    "version": "The version of this command.",
}

HELP = """Runs virtual machines on a pool of machines.

Names or ids everywhere. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not reached in time, 4 not found, 5 refused,
6 cloud not reachable."""

root = LazyGroup(
    "moln",
    table=COMMANDS,
    help=HELP,
    params=[cloud_option()],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def run(arguments: Sequence[str], session: Session | None = None) -> int:
    """Runs one command and returns its exit code."""
    session = session or Session()
    try:
        with root.make_context("moln", list(arguments), obj=session) as context:
            root.invoke(context)
        return Exit.DONE
    except click.exceptions.Exit as err:
        return err.exit_code
    except (CliError, click.ClickException, click.Abort, KeyboardInterrupt, BrokenPipeError, OSError) as err:
        return _explain(err)
    finally:
        session.close()


def _explain(error: BaseException) -> int:
    """Prints the line for the user and returns the code."""
    match error:
        case CliError():
            return _say(error.message, error.code)
        case click.UsageError() if type(error).__name__ == "NoArgsIsHelpError":
            click.echo(error.format_message(), err=True)
            return Exit.USAGE
        case click.UsageError():
            where = f"; see `{error.ctx.command_path} --help`" if error.ctx else ""
            return _say(error.format_message().rstrip(".") + where, Exit.USAGE)
        case click.ClickException():
            return _say(error.format_message(), Exit.FAILED)
        case KeyboardInterrupt() | click.Abort():
            return _say("interrupted", Exit.INTERRUPTED)
        case BrokenPipeError():
            # Who reads has gone (`moln events | head`): nothing more can be said, not even by the last flush.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return Exit.DONE
        case _:
            return _say(str(error), Exit.FAILED)


def _say(message: str, code: Exit) -> int:
    click.echo(f"moln: {message}", err=True)
    return code


def main() -> None:
    """The command `moln`."""
    # What gRPC's core writes to standard error is for its developers; a user gets one line of ours.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    if "_MOLN_COMPLETE" in os.environ:
        root.main(prog_name="moln", complete_var="_MOLN_COMPLETE", obj=Session())
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
