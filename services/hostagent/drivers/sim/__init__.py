"""The simulator: thousands of hosts and their guests in one process, with knobs to fail, stall, vanish and disconnect.

It is a product, selectable like any driver: the load generator. Its "hypervisors" survive a kill -9 of the agent.
"""
