"""`make proto`: Python stubs, their types and a descriptor set from protos/, only when something changed.

The descriptor set (protos/gen/moln.binpb) holds the comments too: generated documentation and `moln explain` read it.
What is generated is never committed and never edited.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "protos"
TARGET = SOURCE / "gen"
STAMP = ".stamp"
GENERATORS = ("grpcio-tools", "mypy-protobuf", "protobuf")


def sources(folder: Path) -> list[Path]:
    """The contract's files under `folder`, relative to it, in a stable order."""
    return sorted(path.relative_to(folder) for path in (folder / "moln").rglob("*.proto"))


def stamp(folder: Path, names: Sequence[Path]) -> str:
    """A hash of the contents of the files, their names, and the versions of what generates from them."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for generator in GENERATORS:
        digest.update(f"{generator} {metadata.version(generator)}\n".encode())
    for name in names:
        digest.update(f"{name} {hashlib.sha256((folder / name).read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def include_flags(source: Path) -> list[str]:
    """Where imports are found: the contract, googleapis (google/rpc) and the well-known types of the compiler."""
    site = sysconfig.get_path("purelib")
    well_known = Path(protoc.__file__).parent / "_proto"
    return [f"-I{source}", f"-I{site}", f"-I{well_known}"]


def describe(source: Path, output: Path) -> bool:
    """Writes the descriptor set of `source`, with comments and imports; False where protoc reported an error."""
    flags = ["--include_imports", "--include_source_info", f"--descriptor_set_out={output}"]
    names = [str(name) for name in sources(source)]
    return bool(protoc.main(["protoc", *include_flags(source), *flags, *names]) == 0)


def generate(source: Path, target: Path) -> bool:
    """Writes stubs, types, package files and the descriptor set into `target`, which must exist."""
    names = sources(source)
    bin_folder = Path(sys.executable).parent
    flags = [
        f"--plugin=protoc-gen-mypy_grpc={bin_folder / 'protoc-gen-mypy_grpc'}",
        f"--python_out={target}",
        f"--grpc_python_out={target}",
        f"--pyi_out={target}",
        f"--mypy_grpc_out=quiet,only_async:{target}",
        "--include_imports",
        "--include_source_info",
        f"--descriptor_set_out={target / 'moln.binpb'}",
    ]
    if protoc.main(["protoc", *include_flags(source), *flags, *(str(name) for name in names)]) != 0:
        return False
    _make_packages(target / "moln")
    return True


def _make_packages(package: Path) -> None:
    for folder in [package, *(path for path in package.rglob("*") if path.is_dir())]:
        (folder / "__init__.py").touch()
    (package / "py.typed").touch()


def main() -> int:
    """Generates if needed; a failure leaves the last good stubs in place and returns 1."""
    names = sources(SOURCE)
    if not names:
        print("protos/moln holds no .proto file yet: no stubs made")
        return 0
    wanted = stamp(SOURCE, names)
    current = TARGET / STAMP
    if current.exists() and current.read_text() == wanted:
        return 0
    with tempfile.TemporaryDirectory(dir=SOURCE, prefix=".gen-") as work:
        fresh = Path(work) / "fresh"
        fresh.mkdir()
        if not generate(SOURCE, fresh):
            print("make proto: protoc refused the files named above; the last good stubs stay", file=sys.stderr)
            return 1
        (fresh / STAMP).write_text(wanted)
        if TARGET.exists():
            shutil.move(TARGET, Path(work) / "old")
        shutil.move(fresh, TARGET)
    return 0


if __name__ == "__main__":
    sys.exit(main())
