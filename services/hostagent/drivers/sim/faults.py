"""How long a simulated deed takes and whether it goes wrong: by knobs and labels, and the driver's dice."""

from __future__ import annotations

from random import Random

from services.common.domain.reasons import Reason
from services.hostagent.drivers.ports import DONE, Deed, Outcome, Work
from services.hostagent.drivers.sim.knobs import Knobs, number

_STOPS = frozenset({Deed.SHUT_DOWN, Deed.HALT})
_OTHERS = frozenset(
    {Deed.SUSPEND, Deed.UPLOAD, Deed.HAND_OVER, Deed.RECEIVE, Deed.FETCH, Deed.MIGRATE, Deed.OPERATE}
)  # fmt: skip
_MAY_LIE = frozenset({Deed.START, Deed.SHUT_DOWN, Deed.SUSPEND, Deed.OPERATE})
"""What is only a nuisance when it is not true. Nothing guards against a hypervisor that lies of having handed over."""
_REASONS = {
    Deed.SUSPEND: Reason.SAVE_FAILED,
    Deed.UPLOAD: Reason.UPLOAD_FAILED,
    Deed.FETCH: Reason.TRANSFER_FAILED,
    Deed.OPERATE: Reason.OPERATION_FAILED,
}


def delay_of(work: Work, knobs: Knobs, dice: Random) -> float:
    """Seconds from the beginning of a deed to its end."""
    if work.deed is Deed.START:
        delay = knobs.start_latency_s
        if knobs.start_jitter_s:
            delay += dice.uniform(0, knobs.start_jitter_s)
        return delay + _stall(knobs.start_stall_rate, knobs, dice)
    if work.deed in _STOPS:
        return work.grace_s if knobs.ignore_acpi else min(knobs.stop_latency_s, work.grace_s)
    if work.deed in _OTHERS:
        return knobs.deed_latency_s + _stall(knobs.deed_stall_rate, knobs, dice)
    return 0.0


def fault_of(work: Work, knobs: Knobs, dice: Random) -> Outcome | None:
    """What goes wrong with a deed instead of its being done; None where nothing does."""
    if work.deed is Deed.START:
        labels = work.order.spec.template.labels if work.order is not None else {}
        if _happens(knobs.start_failure_rate, dice) or (
            labels and work.status.attempt <= number(labels, "sim.fail_starts", 0)
        ):
            return Outcome(False, Reason.START_FAILED, "the simulator was told to fail this start", step="start")
    elif work.deed in _OTHERS and _happens(knobs.deed_failure_rate, dice):
        reason = _REASONS.get(work.deed, Reason.MIGRATION_FAILED)
        return Outcome(False, reason, f"the simulator was told to fail: {work.deed.value}", step=work.deed.value)
    return DONE if work.deed in _MAY_LIE and _happens(knobs.lie_rate, dice) else None


def _stall(rate: float, knobs: Knobs, dice: Random) -> float:
    return knobs.stall_s if _happens(rate, dice) else 0.0


def _happens(rate: float, dice: Random) -> bool:
    return bool(rate) and dice.random() < rate
