"""`moln explain`: what a field means, from the comments of the contract."""

from __future__ import annotations

import textwrap

import click
from click.shell_completion import CompletionItem

from services.cli.command_line import Command, nearest
from services.cli.contract import Contract, Field, Message, contract
from services.cli.exits import CliError, usage
from services.cli.options import Name

ROOTS = {
    "template": ".moln.compute.v1.VmTemplate",
    "vm": ".moln.compute.v1.Vm",
    "host": ".moln.compute.v1.Host",
    "cluster": ".moln.compute.v1.Cluster",
    "image": ".moln.image.v1.Image",
    "datastore": ".moln.image.v1.Datastore",
    "network": ".moln.network.v1.Network",
    "lease": ".moln.network.v1.Lease",
    "user": ".moln.iam.v1.User",
    "status": ".moln.operations.v1.CloudStatus",
    "event": ".moln.operations.v1.Event",
}
WIDTH = 100


class _FieldPath(Name):
    """A path such as `template.disks.bus`, completed step by step."""

    def __init__(self) -> None:
        super().__init__("field")

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The next steps of the path."""
        above, dot, _ = incomplete.rpartition(".")
        try:
            words = _children(contract(), above) if dot else list(ROOTS)
        except CliError:
            return []
        return [CompletionItem(above + dot + word) for word in words if (above + dot + word).startswith(incomplete)]


@click.command(
    "explain",
    cls=Command,
    examples="""
    moln explain template
    moln explain template.disks.bus
    moln explain vm.view.state
    """,
)
@click.argument("field", type=_FieldPath(), required=False)
def command(field: str | None) -> None:
    """Says what a field means: `template` is what YAML templates take, the others are what -o json shows."""
    if field is None:
        known = contract()
        for word, name in ROOTS.items():
            click.echo(f"{word:<10} {_first_sentence(known.messages[name].comment)}")
        return
    for line in explain(contract(), field):
        click.echo(line)


def explain(known: Contract, path: str) -> list[str]:
    """The lines for a path. Raises CliError naming the nearest field where there is none of that name."""
    root, *steps = path.split(".")
    if root not in ROOTS:
        raise usage(f"there is nothing called '{root}' to explain" + (nearest(root, list(ROOTS)) or _list(list(ROOTS))))
    message: Message | None = known.messages[ROOTS[root]]
    found, seen = None, root
    for step in steps:
        found = _step(message, step, seen)
        seen = f"{seen}.{step}"
        message = known.messages.get(found.message)
    return _lines(known, seen, found, message)


def _step(message: Message | None, step: str, seen: str) -> Field:
    names = [field.name for field in message.fields] if message else []
    name = step.partition("[")[0]
    if name not in names:
        raise usage(f"{seen} has no field '{name}'" + (nearest(name, names) or (_list(names) if names else "")))
    assert message is not None  # noqa: S101  (it has fields)
    return next(field for field in message.fields if field.name == name)


def _lines(known: Contract, path: str, field: Field | None, message: Message | None) -> list[str]:
    comment = field.comment if field else (message.comment if message else "")
    lines = [f"{path}{f'  ({field.type_text})' if field else ''}", *_wrapped(comment, "  ")]
    if field is not None and message is not None and field.message != "":
        lines += ["", *_wrapped(message.comment, "  ")]
    if field is not None and field.enum:
        lines += ["", "Words"]
        lines += [f"  {word:<16}{_first_sentence(meaning)}" for word, meaning in known.enums[field.enum]]
    if message is not None:
        lines += ["", "Fields"]
        width = max(len(item.name) for item in message.fields) + 2
        lines += [line for item in message.fields for line in _field_lines(item, width)]
    return lines


def _field_lines(field: Field, width: int) -> list[str]:
    text = textwrap.wrap(field.comment.replace("\n", " "), WIDTH - width)
    first = f"  {field.name:<{width}}{field.type_text}"
    return [first, *(f"  {'':<{width}}{line.strip()}" for line in text)]


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text.replace("\n", " "), WIDTH, initial_indent=indent, subsequent_indent=indent)


def _children(known: Contract, path: str) -> list[str]:
    root, *steps = path.split(".")
    message: Message | None = known.messages.get(ROOTS.get(root, ""))
    for step in steps:
        message = known.messages.get(_step(message, step, path).message)
    return [field.name for field in message.fields] if message else []


def _first_sentence(text: str) -> str:
    return text.replace("\n", " ").partition(". ")[0].rstrip(".")


def _list(names: list[str]) -> str:
    return f" (there are: {', '.join(names)})"
