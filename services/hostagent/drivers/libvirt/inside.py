"""What is inside of guests, for the agent's tunnels: screens, pictures of them, agents. Joins; decides nothing."""

from __future__ import annotations

from moln.node.v1.node_service_pb2 import AgentAnswer, AgentCommand, Screenshot
from services.hostagent.drivers.libvirt.connection import LibvirtConnection
from services.hostagent.drivers.libvirt.guestagent import GuestAgents
from services.hostagent.drivers.libvirt.screen import GuestScreen, take_picture


class LibvirtInside:
    """The inside of all guests of one hypervisor."""

    def __init__(self, connection: LibvirtConnection, agents: GuestAgents) -> None:
        self._connection, self._agents = connection, agents

    async def open_screen(self, host_id: int, uid: str) -> GuestScreen:
        """A viewer's connection."""
        return await GuestScreen.open(self._connection, uid)

    async def take_screenshot(self, host_id: int, uid: str) -> Screenshot:
        """A picture of the screen."""
        picture = await take_picture(self._connection, uid)
        return Screenshot(png=picture.png, width=picture.width, height=picture.height)

    async def ask_agent(self, host_id: int, uid: str, command: AgentCommand) -> AgentAnswer:
        """What the guest's agent answers."""
        return await self._agents.ask(uid, command)
