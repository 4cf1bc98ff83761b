"""The context variables of a VM."""

from __future__ import annotations

import base64

import pytest

from services.hostagent.context.variables import hostname_from, variables_of
from tests.support.hypervisor import add_nic, order


def test_an_interface_is_told_with_all_that_a_guest_needs() -> None:
    vm = order(None, vm_id=12, hostname="web")
    add_nic(vm, "10.98.0.7", bridge="moln1", nic_id=2)
    variables = variables_of(vm)
    assert {name: value for name, value in variables.items() if name.startswith("ETH2_")} == {
        "ETH2_MAC": "02:00:0a:62:00:07",
        "ETH2_IP": "10.98.0.7",
        "ETH2_MASK": "255.255.255.0",
        "ETH2_NETWORK": "10.98.0.0",
        "ETH2_GATEWAY": "10.98.0.1",
        "ETH2_DNS": "192.0.2.53",
        "ETH2_SEARCH_DOMAIN": "",
        "ETH2_MTU": "",
        "ETH2_METHOD": "",
        "ETH2_METRIC": "",
    }
    assert (variables["VMID"], variables["SET_HOSTNAME"], variables["NETWORK"]) == ("12", "web", "YES")


def test_addresses_can_be_left_out() -> None:
    vm = order(None)
    add_nic(vm, "10.98.0.7", bridge="moln1")
    vm.spec.template.context.no_network = True
    assert not [name for name in variables_of(vm) if name.startswith("ETH")]


def test_what_the_owner_says_goes_before_and_secrets_are_there() -> None:
    vm = order(None, hostname="given-by-name")
    context = vm.spec.template.context
    context.ssh_keys.extend(["ssh-ed25519 A a\n", "ssh-ed25519 B b"])
    context.start_script = "#!/bin/sh\necho 'hej'\n"
    context.user_data = b"#cloud-config\n"
    context.variables["SET_HOSTNAME"] = "mine"
    vm.secrets.context_variables["PASSWORD"] = "s3cret"
    variables = variables_of(vm)
    assert variables["SET_HOSTNAME"] == "mine"
    assert variables["SSH_PUBLIC_KEY"] == "ssh-ed25519 A a\nssh-ed25519 B b"
    assert base64.b64decode(variables["START_SCRIPT_BASE64"]) == b"#!/bin/sh\necho 'hej'\n"
    assert (variables["USER_DATA"], variables["USER_DATA_ENCODING"]) == ("I2Nsb3VkLWNvbmZpZwo=", "base64")
    assert variables["PASSWORD"] == "s3cret"


@pytest.mark.parametrize(
    ("name", "hostname"),
    [("web-1", "web-1"), ("my vm_3", "my-vm-3"), ("-å-", "moln"), ("x" * 70, "x" * 63), ("db.example", "db.example")],
)
def test_a_vms_name_becomes_a_host_name(name: str, hostname: str) -> None:
    assert hostname_from(name) == hostname
