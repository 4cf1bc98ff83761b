"""Which cloud a command speaks to, and with what credentials. Reads files and the environment; opens no connection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.cli.exits import CliError, Exit, usage
from services.common import stacks
from services.common.stacks import StackRecord


@dataclass(frozen=True)
class Cloud:
    """A cloud that can be dialled."""

    name: str
    endpoint: str
    """`host:port`, or several separated by commas."""
    token: str
    ca: bytes | None = None
    """Certificates that the cloud's own must come from (PEM); None: no TLS; empty: those of the system."""
    is_supervised: bool = False
    """Somebody starts its processes again when they end, so that it is soon back."""


def find_cloud(choice: str | None, environment: Mapping[str, str], folder: Path) -> Cloud:
    """The cloud to speak to: the chosen one, else that of the environment, else the only one that runs here."""
    chosen = choice or environment.get("MOLN_CLOUD")
    if chosen:
        return _of_stack(find_stack(chosen, environment, folder))
    if environment.get("MOLN_ENDPOINT"):
        return _of_environment(environment)
    return _of_stack(only_running(environment, folder))


def find_stack(choice: str, environment: Mapping[str, str], folder: Path) -> StackRecord:
    """The stack of that name or folder; it need not run."""
    if "/" in choice or (folder / choice).is_dir():
        record = stacks.in_folder(folder / choice)
        if record is not None:
            return record
        if "/" in choice or choice == ".":
            raise CliError(f"there is no stack in {choice}: `moln dev up --state {choice}` makes one", Exit.NOT_FOUND)
    named = [record for record in all_stacks(environment, folder) if record.name == choice]
    if len(named) == 1:
        return named[0]
    if named:
        raise usage(f"several stacks are called {choice}; name the folder instead:\n{listed(named)}")
    raise CliError(f"no stack on this machine is called {choice}{_known(environment, folder)}", Exit.NOT_FOUND)


def only_running(environment: Mapping[str, str], folder: Path) -> StackRecord:
    """The only stack that runs here, for this user."""
    running = [record for record in all_stacks(environment, folder) if record.is_running()]
    if len(running) == 1:
        return running[0]
    if running:
        raise usage(f"several clouds run here; choose one with --cloud or MOLN_CLOUD:\n{listed(running)}")
    raise CliError(
        "no cloud runs on this machine: start one with `moln dev up --detach`, "
        "or name one with --cloud, MOLN_CLOUD, or MOLN_ENDPOINT and MOLN_TOKEN_FILE",
        Exit.UNREACHABLE,
    )


def all_stacks(environment: Mapping[str, str], folder: Path) -> list[StackRecord]:
    """The stacks on the user's list, and the one in this folder."""
    found = {record.state_dir: record for record in stacks.known(environment)}
    here = stacks.in_folder(folder)
    if here is not None:
        found.setdefault(here.state_dir, here)
    return list(found.values())


def listed(records: list[StackRecord]) -> str:
    """One line for each stack."""
    width = max((len(record.name) for record in records), default=0)
    return "\n".join(f"  {record.name:<{width}}  {record.endpoint}  {record.state_dir}" for record in records)


def _of_stack(record: StackRecord) -> Cloud:
    if not record.is_running():
        raise CliError(
            f"the cloud {record.name} ({record.state_dir}) is not running: "
            f"start it with `moln dev up --detach --state {record.state_dir}`",
            Exit.UNREACHABLE,
        )
    return Cloud(record.name, record.endpoint, _read_token(Path(record.token_file)), is_supervised=record.is_ready)


def _of_environment(environment: Mapping[str, str]) -> Cloud:
    endpoint = environment["MOLN_ENDPOINT"]
    token_file = environment.get("MOLN_TOKEN_FILE")
    token = _read_token(Path(token_file)) if token_file else environment.get("MOLN_TOKEN", "")
    if not token:
        raise usage("MOLN_ENDPOINT is set, but no token: set MOLN_TOKEN_FILE to a file that holds it")
    ca = _certificates(environment.get("MOLN_CA_FILE"))
    if ca is None and not all(_is_local(part) for part in endpoint.split(",")):
        raise usage(f"{endpoint} is not on this machine, and a token is not sent there in clear: set MOLN_CA_FILE "
                    "to the certificate of the cloud's authority, or to `system`")  # fmt: skip
    return Cloud(endpoint, endpoint, token, ca)


def _is_local(endpoint: str) -> bool:
    host = endpoint.rsplit(":", 1)[0].strip("[]")
    return endpoint.startswith("unix:") or host in {"localhost", "::1"} or host.startswith("127.")


def _certificates(path: str | None) -> bytes | None:
    if not path:
        return None
    if path == "system":
        return b""
    try:
        return Path(path).read_bytes()
    except OSError as err:
        raise usage(f"MOLN_CA_FILE {path} cannot be read: {err.strerror}") from err


def _read_token(path: Path) -> str:
    try:
        token = path.read_text().strip()
    except OSError as err:
        raise CliError(f"the token file {path} cannot be read: {err.strerror}", Exit.REFUSED) from err
    if not token:
        raise CliError(f"the token file {path} is empty", Exit.REFUSED)
    return token


def _known(environment: Mapping[str, str], folder: Path) -> str:
    names = [record.name for record in all_stacks(environment, folder)]
    return f" (there are: {', '.join(names)})" if names else "; `moln dev up` makes one"
