"""Words for people that several services say alike. Pure."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """`1 VM`, `3 VMs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def them(number: int) -> str:
    """`it` for one, `them` for several."""
    return "it" if number == 1 else "them"
