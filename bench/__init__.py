"""Benchmarks: every figure beside something measured in the same run. `python -m bench [--only PREFIX]`."""

import services  # noqa: F401  before any import of grpc: it turns off handlers of fork that crash children
