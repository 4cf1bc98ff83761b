"""Networks, address ranges, leases and rules."""
