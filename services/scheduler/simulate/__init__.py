"""`moln simulate`: recorded or invented workloads over virtual time, placed by the scheduler's own core.

Nothing here decides where a VM goes: `virtual_time` feeds the ledger that the live scheduler has, and calls its plan.
"""
