"""Makes a domain out of an order: names, buses, sizes and defaults of the libvirt driver. Pure."""

from services.hostagent.drivers.libvirt.compose.disks import disk_plans, kernel_plans
from services.hostagent.drivers.libvirt.compose.domain import compose, domain_name
from services.hostagent.drivers.libvirt.compose.endpoint import Endpoint, default_cpu
from services.hostagent.drivers.libvirt.compose.support import check_supported

__all__ = ["Endpoint", "check_supported", "compose", "default_cpu", "disk_plans", "domain_name", "kernel_plans"]
