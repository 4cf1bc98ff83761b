"""Memory: how much, how much more there can be, where it lies, and one more piece of it."""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement

from services.hostagent.drivers.libvirt.spec import MemorySpec
from services.hostagent.drivers.libvirt.xml.parts import render, text

SLOTS = 16
"""Pieces of memory that can be plugged into one guest."""


def add_memory(domain: Element, memory: MemorySpec) -> None:
    """The size. With slots the guest starts with what it has and more is plugged in; else a balloon holds the rest."""
    if memory.max_mib > memory.mib:
        if memory.has_slots:
            text(domain, "maxMemory", str(memory.max_mib), slots=str(SLOTS), unit="MiB")
            text(domain, "memory", str(memory.mib), unit="MiB")
        else:
            text(domain, "memory", str(memory.max_mib), unit="MiB")
            text(domain, "currentMemory", str(memory.mib), unit="MiB")
    else:
        text(domain, "memory", str(memory.mib), unit="MiB")
    if memory.hugepage_kib:
        pages = SubElement(SubElement(domain, "memoryBacking"), "hugepages")
        SubElement(pages, "page", {"size": str(memory.hugepage_kib), "unit": "KiB"})
    _tune(domain, memory)


def memory_xml(mib: int, node: int = 0) -> str:
    """One more piece of memory for a NUMA node of a guest with slots, as libvirt's attachDevice takes it."""
    element = Element("memory", {"model": "dimm"})
    target = SubElement(element, "target")
    text(target, "size", str(mib), unit="MiB")
    text(target, "node", str(node))
    return render(element)


def _tune(domain: Element, memory: MemorySpec) -> None:
    placed = [(number, cell.host_node) for number, cell in enumerate(memory.cells) if cell.host_node >= 0]
    if not placed:
        return
    tune = SubElement(domain, "numatune")
    nodes = ",".join(str(node) for node in sorted({node for _, node in placed}))
    SubElement(tune, "memory", {"mode": "strict", "nodeset": nodes})
    for number, node in placed:
        SubElement(tune, "memnode", {"cellid": str(number), "mode": "strict", "nodeset": str(node)})
