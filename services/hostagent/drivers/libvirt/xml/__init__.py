"""Renders domains and single devices as XML, from typed inputs. No policy: what the inputs do not say is not there.

`disk_xml`, `nic_xml` and `memory_xml` render one device on its own, for plugging it into a guest that runs.
"""

from services.hostagent.drivers.libvirt.xml.disks import disk_element, disk_xml
from services.hostagent.drivers.libvirt.xml.domain import domain_element, domain_xml
from services.hostagent.drivers.libvirt.xml.mark import MARK_NAMESPACE, MARK_PREFIX, mark_xml, parse_mark
from services.hostagent.drivers.libvirt.xml.memory import memory_xml
from services.hostagent.drivers.libvirt.xml.nics import nic_element, nic_xml
from services.hostagent.drivers.libvirt.xml.parts import parse

__all__ = [
    "MARK_NAMESPACE",
    "MARK_PREFIX",
    "disk_element",
    "disk_xml",
    "domain_element",
    "domain_xml",
    "mark_xml",
    "memory_xml",
    "nic_element",
    "nic_xml",
    "parse",
    "parse_mark",
]
