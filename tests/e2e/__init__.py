"""The whole stack, as a user runs it."""
