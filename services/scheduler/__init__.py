"""Placement: matches what VMs require with what hosts have."""
