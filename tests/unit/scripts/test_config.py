"""deploy/config lists every setting of every service, as the service itself prints it."""

from __future__ import annotations

import pytest

from scripts import config


@pytest.mark.parametrize("service", config.SERVICES)
def test_the_settings_of_a_service_are_listed_as_it_prints_them(service: str) -> None:
    assert not config.stale(service), "python -m scripts.config writes them anew"
