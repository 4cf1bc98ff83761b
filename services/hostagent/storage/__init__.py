"""Disks of VMs on a node: folders, overlays, empty disks, and the cache of images that the node cannot see itself."""
