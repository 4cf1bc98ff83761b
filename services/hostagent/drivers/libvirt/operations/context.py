"""A new context for a guest: the disk is written anew, and changed in the drive of a guest that runs."""

from __future__ import annotations

from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.obs.logs import get_logger
from services.hostagent.context import build_iso, variables_of
from services.hostagent.drivers.libvirt import shape
from services.hostagent.drivers.libvirt.operations.base import Op, failed
from services.hostagent.drivers.libvirt.steps import as_reason
from services.hostagent.drivers.ports import DONE, Outcome

_log = get_logger("context")


async def update(op: Op) -> Outcome:
    """Done when the guest's drive has the new disk in it; a guest that is off gets it at its next start."""
    if not op.folder.path.is_dir() or op.order.spec.template.context.is_disabled:
        return DONE
    op.work.progress(op.work, "make_context", 0)
    with as_reason(Reason.CONTEXT_FAILED):
        await build_iso(op.folder.context_iso, variables_of(op.order), dict(op.order.spec.template.context.files))
    if await op.live.runs(op.uid):
        op.work.progress(op.work, "change_medium", 0)
        await _change_medium(op)
    return DONE


async def refresh(op: Op) -> None:
    """The same beside an operation that does not depend on it: the guest finds the change at its next start anyway."""
    try:
        await update(op)
    except MolnError as err:
        _log.warning("context not changed in the guest", vm_id=op.work.vm_id, error=err.message)


async def _change_medium(op: Op) -> None:
    """Out and in again: the hypervisor takes a file of the same name for the same medium."""
    path = op.folder.context_iso
    drive = shape.find_cdrom(await op.live.describe(op.uid), path)
    if drive is None:
        raise failed("the guest has no drive for the context: it was started without; restart it")
    try:
        await op.live.change(op.uid, shape.with_media(drive, None))
        await op.live.change(op.uid, shape.with_media(drive, path))
    except MolnError as err:
        raise failed(err.message) from err
