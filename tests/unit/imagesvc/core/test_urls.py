"""Which URLs images may be fetched from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.domain.errors import MolnError
from services.imagesvc.core.urls import check_url, may_reach


@pytest.mark.parametrize("url", ["http://a/b", "https://a.example:8443/x?y=z", "http://[::1]/x", "HTTP://A/b"])
def test_http_addresses_will_do(url: str) -> None:
    check_url("location", url)


@pytest.mark.parametrize(
    "url",
    ["", "x", "ftp://a/b", "file:///etc/passwd", "http://", "http:///x", "http://u:p@a/b", "http://u@a/b",
     "http://a b/", "http://a:99999/", "http://[::1/", "http://a/\n", "javascript:x", "http://a/" + "x" * 5000],
)  # fmt: skip
def test_nothing_else_will(url: str) -> None:
    with pytest.raises(MolnError) as caught:
        check_url("location", url)
    assert caught.value.fields[0][0] == "location"


@given(st.text(max_size=80))
def test_any_text_is_judged(text: str) -> None:
    try:
        check_url("location", text)
    except MolnError as err:
        assert err.fields[0][0] == "location"


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "127.8.8.8", "169.254.169.254", "::1", "fe80::1%eth0", "0.0.0.0", "::ffff:127.0.0.1"]
)
def test_the_services_own_machine_is_for_administrators(address: str) -> None:
    assert not may_reach(address, is_admin=False)
    assert may_reach(address, is_admin=True)


@pytest.mark.parametrize("address", ["10.0.0.1", "192.168.1.1", "93.184.216.34", "2606:2800::1"])
def test_other_machines_are_for_everyone(address: str) -> None:
    assert may_reach(address, is_admin=False)
