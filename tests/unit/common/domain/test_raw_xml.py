"""XML of a user's own: what is refused, and how it is laid over a domain."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from services.common.domain.raw_xml import merge_raw, parse_raw

DOMAIN = """<domain><name>a</name><features><acpi/></features><cputune><vcpupin vcpu="0" cpuset="0"/>
<vcpupin vcpu="1" cpuset="0"/></cputune><devices><rng model="virtio"/></devices></domain>"""


def merged(text: str) -> ElementTree.Element:
    domain = ElementTree.fromstring(DOMAIN)
    merge_raw(domain, parse_raw(text))
    return domain


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<a>", "well-formed"),
        ("<a/></raw><raw>", "well-formed"),
        ("stray <a/>", "outside"),
        ("<a/> stray", "outside"),
        ("<!DOCTYPE a><a/>", "document type"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "document type"),
        ("<?php ?>", "document type"),
        ("<a><![CDATA[<b/>]]></a>", "document type"),
        ("<a>&nbsp;</a>", "well-formed"),
        ("<name>x</name>", "moln's own"),
        ("<metadata/>", "moln's own"),
        ("<a>" * 30 + "</a>" * 30, "deep"),
        ("<a>" * 4000 + "</a>" * 4000, "deep"),
        ("<a/>" * 10_000, "at most"),
    ],
)
def test_what_is_no_plain_piece_of_a_domain_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_raw(text)


def test_nothing_at_all_and_comments_are_fine() -> None:
    assert parse_raw("") == []
    assert [element.tag for element in parse_raw("<!-- why --><a/>")] == ["a"]


def test_elements_that_are_there_are_completed_and_others_added() -> None:
    domain = merged("<features><acpi/><hyperv><relaxed state='on'/></hyperv></features><title>t</title>")
    assert [child.tag for child in domain.find("features") or []] == ["acpi", "hyperv"]
    assert domain.findtext("title") == "t"


def test_what_a_number_or_name_tells_apart_is_replaced_one_by_one() -> None:
    pins = merged("<cputune><vcpupin vcpu='1' cpuset='3'/></cputune>").findall("cputune/vcpupin")
    assert [(pin.get("vcpu"), pin.get("cpuset")) for pin in pins] == [("0", "0"), ("1", "3")]


def test_devices_are_added_never_replaced() -> None:
    devices = merged("<devices><rng model='virtio-transitional'/></devices>").findall("devices/rng")
    assert [device.get("model") for device in devices] == ["virtio", "virtio-transitional"]
