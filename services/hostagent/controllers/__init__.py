"""Drives: the stream to the gateway, the reconciler, plans, tunnels and host reports, between core and drivers."""
