"""What guests can have, and how far each is proven: read from the marks on the tests that prove it.

`@pytest.mark.feature(name, proof)` with proof `run` (seen in, or of, a guest that runs), `defined` (taken by the
hypervisor) or `schema` (valid by libvirt's schema). The name `*` stands for every shape.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from services.hostagent.drivers.libvirt.compose.support import CANNOT
from services.hostagent.drivers.libvirt.features import HYPERVISORS, INSIDE, SHAPES

Table = Callable[[Sequence[str], Sequence[Sequence[str]]], list[str]]
PROOFS = ("run", "defined", "schema")
"""Best first."""
KNOWN = {*SHAPES, *INSIDE, *HYPERVISORS}
FOLDERS = ("tests/unit/hostagent/libvirt", "tests/integration/hostagent/libvirt", "tests/e2e")


def marks(root: Path) -> Iterator[tuple[str, str, str]]:
    """Every mark in the tests: feature, proof, name of the test."""
    for folder in FOLDERS:
        for file in sorted((root / folder).rglob("test_*.py")):
            for function in ast.walk(ast.parse(file.read_text())):
                if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and function.name.startswith("test_"):
                    yield from ((*mark, function.name) for node in function.decorator_list for mark in _marks(node))


def proofs(root: Path) -> Mapping[str, tuple[str, str]]:
    """Feature → its best proof, and the test that gives it. Raises ValueError for a mark that names nothing known."""
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for name, proof, test in marks(root):
        if proof not in PROOFS or (name != "*" and name not in KNOWN):
            raise ValueError(f"{test}: the mark feature({name!r}, {proof!r}) names no feature or no proof")
        for feature in SHAPES if name == "*" else (name,):
            found[feature].append((PROOFS.index(proof), test))
    best = {feature: min(tests) for feature, tests in found.items()}
    return {feature: (PROOFS[rank], test) for feature, (rank, test) in best.items()}


def features(root: Path, table: Table) -> list[str]:
    """The document's lines."""
    proven = proofs(root)
    return [
        "How far each feature of a guest is proven on the reference machine, which has QEMU without KVM, and no other",
        "hypervisor that runs. *run*: seen inside a running guest, or of it. *defined*: a real libvirt takes it.",
        "*schema*: valid by libvirt's schema, and no more is known. What a hypervisor cannot do is refused by name.",
        "",
        "## QEMU and KVM",
        "",
        *table(
            ("feature", "in a template", "proof", "by"), [_row(name, said, proven) for name, said in SHAPES.items()]
        ),
        "",
        "## Looking inside, on QEMU and KVM",
        "",
        *table(("what", "how", "proof", "by"), [_row(name, said, proven) for name, said in INSIDE.items()]),
        "",
        "## Other hypervisors",
        "",
        *table(
            ("hypervisor", "cannot", "proof", "by"),
            [_row(name, _refused(type), proven) for name, type in HYPERVISORS.items()],
        ),
    ]


def _row(name: str, said: str, proven: Mapping[str, tuple[str, str]]) -> tuple[str, ...]:
    proof, test = proven[name]
    return (name, said, proof, f"`{test}`")


def _refused(type: str) -> str:
    return ", ".join(f"`{field}`" for field in sorted(CANNOT[type]))


def _marks(decorator: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(decorator):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "feature":
            values = [value.value for value in node.args if isinstance(value, ast.Constant)]
            if len(values) == 2:
                yield str(values[0]), str(values[1])
