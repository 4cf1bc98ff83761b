"""`python -m services.hostagent`: the agent of a node. Options are short forms of settings."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import NoReturn

from services.common.runtime import run_service
from services.common.runtime.settings import environment_name
from services.hostagent.app import main
from services.hostagent.settings import Settings

SERVICE = "hostagent"
_OPTIONS = {
    "--join": ("join_token", "TOKEN", "one-time token that `moln host create` printed"),
    "--api": ("api_addresses", "HOST:PORT", "address of the node gateway; several with commas"),
    "--state": ("state_dir", "DIR", "folder of the node's secret, disks and cache"),
    "--hosts": ("hosts_file", "FILE", "hosts that this agent carries; default: host.json in the state folder"),
    "--driver": ("driver", "NAME", "libvirt or sim"),
    "--uri": ("libvirt_uri", "URI", "the hypervisor, for example qemu:///system"),
    "--on-stop": ("on_stop", "WHAT", "keep or poweroff: what becomes of guests when the agent stops"),
}


def environment_from(arguments: Sequence[str], environ: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Takes the short options out; they become variables, which go before the settings file."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for option, (field, metavar, help_text) in _OPTIONS.items():
        parser.add_argument(option, dest=field, metavar=metavar, help=help_text)
    known, rest = parser.parse_known_args(arguments)
    if {"-h", "--help"} & set(rest):
        print(parser.format_help())
    given = {environment_name(SERVICE, name): str(value) for name, value in vars(known).items() if value is not None}
    return rest, {**environ, **given}


def leave(status: int) -> NoReturn:
    """Ends the process, whose work is done. A thread that hangs in a call of a hypervisor would be waited for by Python
    for as long as it hangs; it holds nothing that the end does not free."""
    if not any(thread is not threading.current_thread() and not thread.daemon for thread in threading.enumerate()):
        sys.exit(status)
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


if __name__ == "__main__":
    argv, environment = environment_from(sys.argv[1:], os.environ)
    leave(run_service(SERVICE, Settings, main, argv=argv, environ=environment))
