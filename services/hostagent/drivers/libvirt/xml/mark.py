"""The mark in a domain's metadata that tells which VM of which cloud it is."""

from __future__ import annotations

from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from services.hostagent.drivers.libvirt.spec import Mark
from services.hostagent.drivers.libvirt.xml.parts import parse, render

MARK_NAMESPACE = "urn:moln:domain:1"
MARK_PREFIX = "moln"

ElementTree.register_namespace(MARK_PREFIX, MARK_NAMESPACE)


def mark_element(mark: Mark) -> Element:
    """The mark as it stands under `metadata`."""
    values = {"id": str(mark.vm_id), "uid": mark.uid, "epoch": str(mark.epoch), "cloud": mark.cloud_uid}
    if mark.is_imported:
        values["imported"] = "yes"
    return Element(f"{{{MARK_NAMESPACE}}}vm", values)


def mark_xml(mark: Mark) -> str:
    """The mark as libvirt's setMetadata takes it: the prefix and namespace go beside it."""
    element = mark_element(mark)
    element.tag = "vm"
    return render(element)


def parse_mark(text: str) -> Mark | None:
    """The mark in a domain's metadata element, or None where it is not one that this version can read."""
    try:
        found = parse(text)
        values = found.attrib
        is_imported = values.get("imported") == "yes"
        return Mark(int(values["id"]), values["uid"], int(values["epoch"]), values["cloud"], is_imported)
    except (ValueError, KeyError):
        return None
