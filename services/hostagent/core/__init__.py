"""Decides: pure functions over what is ordered and what is seen. No clock, event loop, gRPC or hypervisor."""
