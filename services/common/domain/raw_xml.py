"""XML of a user's own for a hypervisor: read within limits, and merged into a domain as elements, never as text.

The api refuses what cannot be read; the node merges. Must not know what the elements mean.
"""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree.ElementTree import Element, ParseError, XMLParser

MAX_CHARACTERS = 32 * 1024
MAX_DEPTH = 24
PROTECTED = frozenset({"name", "uuid", "metadata"})
"""What moln knows the guest by."""
_ROOT = "raw"
_LISTS = frozenset({"devices"})
"""Elements whose children are added, not merged with one another."""
_NAMING = ("name", "id", "vcpu", "iothread", "dev", "cellid")
"""Attributes that tell one of several elements of the same tag from another."""


def parse_raw(text: str) -> list[Element]:
    """The elements of a piece of XML. Raises ValueError, in words for the user, for what is not allowed."""
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"has {len(text)} characters; at most {MAX_CHARACTERS} are allowed")
    if "<!" in text.replace("<!--", "") or "<?" in text:
        raise ValueError("may hold elements only: no document type, CDATA or processing instruction")
    root = _parsed(text)
    if (root.text or "").strip() or any((child.tail or "").strip() for child in root):
        raise ValueError("has text outside of its elements")
    for child in root:
        if child.tag in PROTECTED:
            raise ValueError(f"must not hold <{child.tag}>: that is moln's own")
    return list(root)


def merge_raw(target: Element, elements: Iterable[Element]) -> None:
    """Puts elements under `target`. One that is there already (by its tag, and what numbers or names it) gets the
    attributes, the text and the children of the new one; devices are always added.
    """
    for element in elements:
        there = None if target.tag in _LISTS else _same(target, element)
        if there is None:
            target.append(element)
            continue
        there.attrib.update(element.attrib)
        if (element.text or "").strip():
            there.text = element.text
        merge_raw(there, element)


def _same(target: Element, element: Element) -> Element | None:
    return next((child for child in target if _identity(child) == _identity(element)), None)


def _identity(element: Element) -> tuple[str, ...]:
    return (element.tag, *(element.get(name, "") for name in _NAMING))


def _parsed(text: str) -> Element:
    """The elements below a root of ours. How deep they are is counted before anything recurses."""
    parser = XMLParser()  # noqa: S314 -- without a document type, which is refused above, there are no entities
    try:
        for piece in (f"<{_ROOT}>", text, f"</{_ROOT}>"):
            parser.feed(piece)
        root: Element = parser.close()
    except ParseError as err:
        raise ValueError(f"is no well-formed XML: {err}") from err
    level = [root]
    for _ in range(MAX_DEPTH):
        level = [child for element in level for child in element]
    if level:
        raise ValueError(f"is nested {MAX_DEPTH} deep or more")
    return root
