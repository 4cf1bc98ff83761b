"""What a hypervisor that hangs costs the agent when it is to end: a moment, once, instead of a wait for each call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from services.common.obs.logs import get_logger
from services.hostagent.drivers.libvirt.connection import HypervisorError, HypervisorSilent, LibvirtConnection, Raw

PARTING_SECONDS = 2.0
"""So long a hypervisor has to say anything at all."""


async def part(connection: LibvirtConnection, stopping: Callable[[], Awaitable[None]]) -> None:
    """Once `stopping` returns, has nobody wait any more for a hypervisor that is silent; one that answers is let be."""
    await stopping()
    if not await _answers(connection):
        get_logger("libvirt").warning("the hypervisor is silent: nothing waits for it any more", uri=connection.uri)
        connection.patience.lose()


async def _answers(connection: LibvirtConnection) -> bool:
    """Also where it refuses. Asked on a connection that nobody else holds."""
    asking = connection.another(0)
    try:
        await asking.call(_anything, what="asking whether it is there", seconds=PARTING_SECONDS)
    except HypervisorSilent:
        return False
    except HypervisorError:
        return True
    finally:
        asking.abandon()
    return True


def _anything(raw: Raw) -> int:
    return int(raw.getLibVersion())
