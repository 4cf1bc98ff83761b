"""What can be done to a guest beside starting and ending it: one function for each kind of operation."""

from services.hostagent.drivers.libvirt.operations.table import operate

__all__ = ["operate"]
