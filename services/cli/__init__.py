"""The `moln` command. It speaks only the public API."""
