"""Reads libvirt's numbers for the state of a domain as the words of the agent's ports. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from services.hostagent.drivers.libvirt.connection import Flags, LiveFlags
from services.hostagent.drivers.libvirt.spec import Mark
from services.hostagent.drivers.ports import End, Power


@dataclass(frozen=True, slots=True)
class Observed:
    """A domain that moln marked, as libvirt has it now."""

    mark: Mark
    name: str
    power: Power
    end: End
    is_saved: bool = False
    """It is off because its memory has been saved."""
    is_arriving: bool = False
    """It stands still for a migration, or because its process only begins."""


def power_of(state: int) -> Power:
    """Whether the guest's vCPUs exist."""
    if state in Flags.ACTIVE_STATES:
        return Power.RUNNING
    return Power.OFF if state in Flags.OFF_STATES else Power.UNKNOWN


def end_of(state: int, reason: int) -> End:
    """How a guest that is off ended. Whether moln itself pulled the plug is the driver's to know."""
    if power_of(state) is not Power.OFF:
        return End.NONE
    if state == Flags.CRASHED or reason in Flags.OFF_CRASHED:
        return End.CRASHED
    if reason == Flags.OFF_SHUT_DOWN:
        return End.SHUT_DOWN
    return End.VANISHED if reason == Flags.OFF_DESTROYED else End.NONE


def is_saved(state: int, reason: int) -> bool:
    """Whether a guest is off because its memory was saved: the file is the driver's to know."""
    return power_of(state) is Power.OFF and reason == LiveFlags.OFF_SAVED


def is_arriving(state: int, reason: int) -> bool:
    """Whether a guest stands still for a migration, or as its process only begins: at the target it has not run."""
    return state == LiveFlags.PAUSED and reason in (LiveFlags.PAUSED_MIGRATION, LiveFlags.PAUSED_STARTING_UP)
