"""Small pieces that all elements are made of, and the reading of XML that libvirt gave."""

from __future__ import annotations

from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

MAX_XML_CHARACTERS = 4 * 1024 * 1024


def parse(text: str) -> Element:
    """XML that libvirt gave. Raises ValueError on a document type or an absurd size: neither is libvirt's."""
    if len(text) > MAX_XML_CHARACTERS or "<!DOCTYPE" in text[:1024]:
        raise ValueError("XML from the hypervisor has a document type or is too long")
    try:
        return ElementTree.fromstring(text)  # noqa: S314 -- checked above; entities need a document type
    except ElementTree.ParseError as err:
        raise ValueError(f"XML from the hypervisor does not parse: {err}") from err


def render(element: Element) -> str:
    """The element as text."""
    return ElementTree.tostring(element, encoding="unicode")


def text(parent: Element, name: str, content: str, **attributes: str) -> Element:
    """Adds an element with text; attributes that are empty are left out."""
    element = SubElement(parent, name, present(**attributes))
    element.text = content
    return element


def present(**attributes: str) -> dict[str, str]:
    """The attributes that are not empty."""
    return {name: value for name, value in attributes.items() if value}


def boot(device: Element, order: int) -> None:
    """The device's place among those that the guest tries to boot from; 0 is none."""
    if order:
        SubElement(device, "boot", {"order": str(order)})
