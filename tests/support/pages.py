"""Pages of documentation, run: the commands of their fenced `console` blocks, and what each is said to print.

A line that begins with `$ ` is a command, `> ` goes on with it, other lines are what it prints; `...` stands for what
is left out. `<!-- file: NAME -->` before a block makes it a file; `<!-- not run: WHY -->` leaves a block out.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

_BLOCK = re.compile(r"(?:^<!-- (not run|file): (?P<note>.*?) -->\n)?^```(?P<kind>\w+)\n(?P<body>.*?)^```$", re.M | re.S)
_WORD = re.compile(r"[A-Za-z][A-Za-z_-]{2,}")
_REFUSALS = ("ERROR:", "moln: ")
_TELLS = "moln dev"
"""What prints lines of the same form when all goes well."""
_END = "-- end of step --"


@dataclass
class Step:
    """One command of a page and the lines that it prints there, or a file that the page shows."""

    line: int
    command: str = ""
    printed: list[str] = field(default_factory=list)
    file: str = ""

    @property
    def is_refused(self) -> bool:
        """Whether the page shows the command fail."""
        return bool(self.printed) and self.printed[0].startswith(_REFUSALS) and not self.command.startswith(_TELLS)

    def words(self) -> set[str]:
        """What must be found in the output. Figures, ids and what an ellipsis touches differ from run to run."""
        shown = re.sub(r"\S*…\S*", " ", "\n".join(self.printed))
        return set(_WORD.findall(shown))


def steps(page: Path) -> list[Step]:
    """The steps of a page, in its order."""
    return list(_steps(page.read_text()))


def _steps(text: str) -> Iterator[Step]:
    for block in _BLOCK.finditer(text):
        line = text.count("\n", 0, block.start("body")) + 1
        if block.group(1) == "file":
            yield Step(line, file=block.group("note"), printed=block.group("body").splitlines())
        elif block.group("kind") == "console" and block.group(1) is None:
            yield from _commands(block.group("body").splitlines(), line)


def _commands(lines: list[str], first: int) -> Iterator[Step]:
    step: Step | None = None
    for number, line in enumerate(lines, first):
        if line.startswith("$ "):
            if step is not None:
                yield step
            step = Step(number, line[2:])
        elif step is not None and line.startswith("> ") and not step.printed:
            step.command += "\n" + line[2:]
        elif step is not None and line != "...":
            step.printed.append(line)
    if step is not None:
        yield step


class Shell:
    """A shell in which the steps of one page are taken, one after the other, as a reader would.

    `replace` is done to commands (an address that differs from the page's); words that `differs` names need not be
    printed.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        replace: Mapping[str, str] | None = None,
        differs: frozenset[str] = frozenset(),
    ) -> None:
        self._folder = folder
        self._replace = replace or {}
        self._differs = differs
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"], cwd=folder, env=dict(environment), text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bash.kill()
        self._bash.communicate()

    def take(self, step: Step) -> str:
        """Takes one step and returns what was printed. AssertionError where it is not what the page says."""
        if step.file:
            (self._folder / step.file).write_text("\n".join(step.printed) + "\n")
            return ""
        code, output = self._run(step.command)
        shown = f"line {step.line}: $ {step.command}\nended with {code} and printed:\n{output}"
        assert (code != 0) == step.is_refused, shown
        missing = step.words() - set(_WORD.findall(output)) - self._differs
        assert not missing, f"{shown}\nwithout: {', '.join(sorted(missing))}"
        return output

    def _run(self, command: str) -> tuple[int, str]:
        for old, new in self._replace.items():
            command = command.replace(old, new)
        assert self._bash.stdin is not None and self._bash.stdout is not None
        self._bash.stdin.write(f"{{ {command}\n}} </dev/null\nprintf '%s %d\\n' '{_END}' $?\n")
        self._bash.stdin.flush()
        lines: list[str] = []
        for line in self._bash.stdout:
            before, end, code = line.partition(_END)
            lines.append(before)
            if end:
                return int(code), "".join(lines)
        raise AssertionError(f"the shell ended in: {command}\n{''.join(lines)}")
