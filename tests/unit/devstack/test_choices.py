"""What a stack chooses: node, network, ports, name. No process is started."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from services.devstack import networks, ports
from services.devstack.errors import StackError
from services.devstack.layout import FOLDER_BYTES, Folder, Memory, load_memory, save_memory
from services.devstack.nodes import Machine, real_plan, sim_plan
from services.devstack.ports import DEFAULTS, is_free
from services.devstack.reservations import Reservations

ALONE = f"moln-test-{os.getpid()}"
"""What stacks of this machine have reserved is not seen here."""
PRIVATE = "qemu+unix:///system?socket=/run/x"
FULL = Machine(is_root=True, has_sudo=False, missing=(), system_uri=None, has_libvirtd=True)


def test_a_machine_with_qemu_and_root_gets_a_real_node_on_a_libvirt_of_its_own() -> None:
    plan = real_plan(FULL, PRIVATE)
    assert plan.settings["libvirt_uri"] == PRIVATE
    assert plan.has_own_libvirtd
    assert not plan.is_by_sudo


def test_the_libvirt_of_the_machine_is_used_where_it_runs() -> None:
    machine = Machine(is_root=True, has_sudo=False, missing=(), system_uri="qemu:///system", has_libvirtd=True)
    plan = real_plan(machine, PRIVATE)
    assert plan.settings["libvirt_uri"] == "qemu:///system"
    assert not plan.has_own_libvirtd


def test_without_root_the_agent_is_started_by_sudo() -> None:
    machine = Machine(is_root=False, has_sudo=True, missing=(), system_uri=None, has_libvirtd=True)
    assert real_plan(machine, PRIVATE).is_by_sudo


@pytest.mark.parametrize(
    ("machine", "lost"),
    [
        (Machine(True, False, ("qemu-img",), None, True), "not installed: qemu-img"),
        (Machine(True, False, (), None, False), "libvirt is not installed"),
        (Machine(False, False, (), None, True), "sudo gives it only on a terminal"),
    ],
)
def test_what_is_lost_without_qemu_libvirt_or_root_is_said(machine: Machine, lost: str) -> None:
    plan = real_plan(machine, PRIVATE)
    assert plan.settings["libvirt_uri"] == "test:///default"
    assert lost in plan.words


def test_simulated_hosts_share_one_agent() -> None:
    plan = sim_plan(3)
    assert (plan.name, list(plan.hosts)) == ("sim", ["sim-1", "sim-2", "sim-3"])


HEADER = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"


def routes(folder: Path, *networks: str) -> Path:
    def word(value: int) -> str:
        return value.to_bytes(4, "little").hex().upper()

    parsed = [ipaddress.IPv4Network(text) for text in networks]
    lines = [
        f"br0\t{word(int(n.network_address))}\t00000000\t0001\t0\t0\t0\t{word(int(n.netmask))}\t0\t0\t0" for n in parsed
    ]
    file = folder / "route"
    file.write_text(HEADER + "\n".join(lines) + "\n")
    return file


def test_the_first_network_of_the_pool_is_taken_where_it_is_free(folder: Path) -> None:
    assert choose_network([], routes(folder, "0.0.0.0/0")) == "10.44.0.0/20"


def test_networks_of_this_machine_and_of_other_stacks_are_left_alone(folder: Path) -> None:
    assert choose_network(["10.44.16.0/20"], routes(folder, "10.44.3.0/24")) == "10.44.32.0/20"


def test_a_machine_that_routes_the_whole_pool_has_no_network_left(folder: Path) -> None:
    with pytest.raises(StackError, match="no network of"):
        choose_network([], routes(folder, "10.0.0.0/8"))


def choose(former: Mapping[str, int] | None) -> dict[str, int]:
    """The ports that a stack takes that ends at once."""
    with Reservations(ALONE) as reserved:
        return ports.choose(former, reserved)


def choose_network(taken: Iterable[str], routes: Path) -> str:
    """The network that such a stack takes."""
    with Reservations(ALONE) as reserved:
        return networks.choose_network(taken, reserved, routes)


def test_ports_of_the_last_run_are_kept_and_taken_ones_replaced() -> None:
    first = choose(None)
    assert set(first) == set(DEFAULTS)
    with socket.create_server(("127.0.0.1", first["api"])):
        assert not is_free(first["api"])
        again = choose(first)
    assert again["api"] != first["api"]
    assert {name: port for name, port in again.items() if name != "api"} == {
        name: port for name, port in first.items() if name != "api"
    }


def test_a_second_stack_takes_no_default_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        defaults = dict(DEFAULTS)
        try:
            DEFAULTS["api"] = taken.getsockname()[1]
            assert not set(choose(None).values()) & set(defaults.values())
        finally:
            DEFAULTS.update(defaults)


def test_stacks_that_start_in_the_same_moment_take_different_ports_and_networks(folder: Path) -> None:
    with Reservations(ALONE) as first, Reservations(ALONE) as second:
        one, other = ports.choose(None, first), ports.choose(None, second)
        assert not set(one.values()) & set(other.values())
        again = ports.choose(one, second)
        assert not set(again.values()) & set(one.values()), "the stack that has them has not ended yet"
        machine = routes(folder, "0.0.0.0/0")
        assert networks.choose_network([], first, machine) != networks.choose_network([], second, machine)


def test_the_folder_is_closed_to_others_and_not_shared_with_something_else(folder: Path) -> None:
    made = Folder(folder / "cloud")
    made.make()
    made.make()
    assert (folder / "cloud").stat().st_mode & 0o777 == 0o700
    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(StackError, match="holds something else than a stack"):
        Folder(folder / "mine").make()
    assert [path.name for path in (folder / "mine").iterdir()] == ["thesis.txt"]


def test_a_long_path_gets_a_short_name_for_its_sockets(folder: Path) -> None:
    deep = folder.joinpath(*["a-rather-long-name-of-a-folder"] * 5)
    deep.mkdir(parents=True)
    made = Folder(deep / "cloud")
    made.make()
    assert len(str(made.etcd)) <= FOLDER_BYTES
    assert made.etcd.resolve() == (deep / "cloud" / "etcd").resolve()
    assert made.etcd.parent.stat().st_mode & 0o777 == 0o700
    made.etcd.unlink()
    made.etcd.parent.rmdir()


def test_what_a_stack_remembers_is_found_again(folder: Path) -> None:
    memory = Memory("mine", 7, {"api": 2632}, "10.44.0.0/20", keeps_guests=True)
    save_memory(Folder(folder), memory)
    assert load_memory(Folder(folder)) == memory
    assert load_memory(Folder(folder / "none")) is None
