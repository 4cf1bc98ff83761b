"""Shared by services that own resources: pages, masks, names, repeated requests, parts of VMs that one leader gives."""
