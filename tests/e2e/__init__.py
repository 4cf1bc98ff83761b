"""The whole stack, driven by the `moln` command as a user does."""
