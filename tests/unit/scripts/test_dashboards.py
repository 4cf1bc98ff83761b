"""The dashboards that are kept are those that the code makes, and each panel has its source."""

from __future__ import annotations

import json

import pytest

from scripts.dashboards import BOARDS, FOLDER, document, panels


@pytest.mark.parametrize("name", BOARDS)
def test_what_is_kept_is_what_is_made(name: str) -> None:
    assert (FOLDER / name).read_text() == document(BOARDS[name]), "run: python -m scripts.dashboards"


@pytest.mark.parametrize("name", BOARDS)
def test_every_panel_asks_the_source_that_is_chosen(name: str) -> None:
    made = json.loads(document(BOARDS[name]))
    shown = [panel for panel in made["panels"] if panel["type"] != "row"]
    assert [panel["title"] for panel in shown] == [panel.title for panel in panels(BOARDS[name])]
    assert {panel["datasource"]["uid"] for panel in shown} == {"${datasource}"}
    assert all(target["expr"] for panel in shown for target in panel["targets"])
    assert made["uid"] == BOARDS[name].uid
