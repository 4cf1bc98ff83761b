"""The templates in examples/ are read without a complaint."""

from __future__ import annotations

from pathlib import Path

import pytest

from moln.compute.v1.template_pb2 import VmTemplate
from services.cli.templates import read_yaml

FOLDER = Path(__file__).resolve().parents[3] / "examples" / "templates"


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.yaml")))
def test_an_example_is_a_template(name: str) -> None:
    assert read_yaml((FOLDER / name).read_text(), VmTemplate, name).memory_mib
