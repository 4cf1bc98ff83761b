"""What one run of the command has: its environment, its cloud, and the connection, made when first used."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from services.cli.clouds import Cloud, find_cloud

if TYPE_CHECKING:
    from services.cli.client import Client


class Session:
    """One run of the command."""

    def __init__(self, environment: Mapping[str, str] | None = None, folder: Path | None = None) -> None:
        self.environment = os.environ if environment is None else environment
        self.folder = folder or Path.cwd()
        self.choice: str | None = None

    @cached_property
    def cloud(self) -> Cloud:
        """The cloud to speak to. Raises CliError where there is none, or more than one."""
        return find_cloud(self.choice, self.environment, self.folder)

    @cached_property
    def client(self) -> Client:
        """The connection to it."""
        from services.cli.client import Client
        from services.cli.revisions import last_revision

        return Client(self.cloud, last_revision(self.environment, self.cloud.endpoint, self.cloud.token))

    def close(self) -> None:
        """Ends the connection, where one was made."""
        if "client" in self.__dict__:
            self.client.close()


def is_terminal() -> bool:
    """Whether a person looks at what is printed."""
    return sys.stdout.isatty()
