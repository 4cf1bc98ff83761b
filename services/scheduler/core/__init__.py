"""Decides where VMs go: columns of hosts, filters, ranks, plans. No clock, store, gRPC or event loop."""
