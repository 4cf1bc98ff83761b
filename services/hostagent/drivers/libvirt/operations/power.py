"""Reboot, with the guest's consent or without."""

from __future__ import annotations

from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.hostagent.drivers.libvirt.operations.base import Op, failed
from services.hostagent.drivers.ports import DONE, Outcome

REBOOT_SECONDS = 120.0


async def reboot(op: Op) -> Outcome:
    """A soft one is done when the guest has begun anew; repeated after a crash of the agent it may be done twice."""
    if not await op.live.runs(op.uid):
        raise MolnError(Reason.STATE_FORBIDS, "the guest does not run: start it instead")
    if op.parameters.is_hard:
        await op.live.reset(op.uid)
        return DONE
    seconds = REBOOT_SECONDS if op.tools.endpoint.domain_type != "test" else 0.0
    if not await op.live.reboot(op.uid, seconds) and seconds:
        raise failed(f"the guest did not reboot within {seconds:g} s of being asked: try --hard")
    return DONE
