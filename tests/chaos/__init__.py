"""Kill, stall and cut: what the whole stack makes of it."""
