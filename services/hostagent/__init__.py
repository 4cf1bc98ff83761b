"""The agent of a node: takes the VMs placed there all the way, and reports."""
