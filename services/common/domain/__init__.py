"""The vocabulary that all services share: reasons, errors, keys, ids, names and the view of a VM. Pure; no I/O."""
