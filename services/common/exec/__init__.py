"""Other programs, run by argument vector within limits."""
