"""`moln completion`: the script that makes a shell complete commands, names and ids."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from services.cli.command_line import Command


@click.command(
    "completion",
    cls=Command,
    examples="""
    source <(moln completion bash)
    moln completion zsh > "${fpath[1]}/_moln"
    moln completion fish > ~/.config/fish/completions/moln.fish
    """,
)
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def command(shell: str) -> None:
    """Prints the completion script of a shell; names and ids come from the running cloud."""
    from services.cli.main import root

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"there is no completion for {shell}")
    click.echo(kind(root, {}, "moln", "_MOLN_COMPLETE").source())
