"""Benchmarks: every figure beside something measured in the same run. `python -m bench [--only PREFIX]`."""
