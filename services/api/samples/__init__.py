"""Samples of load, as they came from nodes: kept in memory for a day, read by `top` and the dashboards of clients."""
