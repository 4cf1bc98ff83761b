"""A driver on a libvirtd of the test's own; guests that a failing test leaves are erased with it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from moln.node.v1.node_service_pb2 import ImageTicket
from services.hostagent.drivers.libvirt.driver import DriverOptions, LibvirtDriver
from services.hostagent.drivers.ports import Deed
from tests.support import hypervisor
from tests.support.deeds import Doer
from tests.support.processes import Processes

Open = Callable[[], AbstractAsyncContextManager[LibvirtDriver]]


@pytest.fixture(scope="package", autouse=True)
def no_image_left() -> Iterator[None]:
    yield
    hypervisor.remove_built_image()


@pytest.fixture
def uri(running: Processes, folder: Path) -> str:
    return hypervisor.private_libvirtd(running, folder)


@pytest.fixture
def bridge() -> str:
    """Differs between test runs of one machine."""
    return f"mt{os.getpid()}"


@pytest.fixture
def datastore(folder: Path) -> Path:
    """A folder that the driver recognises as datastore 1."""
    path = folder / "datastore"
    path.mkdir()
    return path


@pytest.fixture
def image(datastore: Path) -> Path:
    """The demo guest's image in that datastore."""
    return hypervisor.guest_image(datastore)


@pytest.fixture
def open_driver(uri: str, folder: Path, datastore: Path) -> Open:
    """Opens drivers, one after the other, on the same node."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[LibvirtDriver]:
        state = folder / "node"
        state.mkdir(exist_ok=True)
        options = DriverOptions(1, hypervisor.CLOUD, state, uri, domain_type="qemu")
        async with LibvirtDriver(options, pieces_of(datastore)) as driver:
            await driver.inventory(1, [hypervisor.datastore(datastore)])
            yield driver

    return opened


@pytest.fixture
async def driver(open_driver: Open) -> AsyncIterator[LibvirtDriver]:
    async with open_driver() as opened:
        yield opened
        for seen in await opened.look(1):
            left = hypervisor.order(None, vm_id=seen.vm_id)
            left.uid = seen.uid
            await Doer(opened).do(Deed.ERASE, left)


def pieces_of(datastore: Path) -> Callable[[ImageTicket], AsyncIterator[bytes]]:
    """Stands for imagesvc: hands out the file `image-<id>` of the datastore."""

    async def fetch(ticket: ImageTicket) -> AsyncIterator[bytes]:
        data = (datastore / f"image-{ticket.image_id}").read_bytes()
        for start in range(0, len(data), 65536):
            yield data[start : start + 65536]

    return fetch
