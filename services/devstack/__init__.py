"""A whole cloud on one machine: starts every service as a process, and cleans up after them."""
