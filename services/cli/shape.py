"""The flags that shape a VM, and the template that they and a file make together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from moln.compute.v1.placement_pb2 import WeightedPolicy
from moln.compute.v1.template_pb2 import Context, DiskTemplate, NicTemplate, OnHostLoss, RestartPolicy, VmTemplate
from services.cli.exits import usage
from services.cli.options import KEY_VALUE, SIZE, Name, file_bytes
from services.cli.policies import policy_option
from services.cli.templates import read_pairs, read_yaml

F = TypeVar("F", bound=Callable[..., Any])
DEFAULT_MEMORY_MIB = 512
CONTEXT_FILES_BYTES = 32 * 1024
_KEY_KINDS = ("ssh-", "ecdsa-", "sk-")
_RESTART = {
    None: RestartPolicy.RESTART_POLICY_UNSPECIFIED,
    "on-crash": RestartPolicy.RESTART_POLICY_ON_CRASH,
    "never": RestartPolicy.RESTART_POLICY_NEVER,
    "always": RestartPolicy.RESTART_POLICY_ALWAYS,
}
_ON_HOST_LOSS = {
    None: OnHostLoss.ON_HOST_LOSS_UNSPECIFIED,
    "leave": OnHostLoss.ON_HOST_LOSS_LEAVE,
    "restart": OnHostLoss.ON_HOST_LOSS_RESTART,
    "restart-with-new-disks": OnHostLoss.ON_HOST_LOSS_RESTART_WITH_NEW_DISKS,
}

_OPTIONS = (
    click.option("--file", "-f", "file", help="YAML template, `-` for standard input (see `moln explain`)."),
    click.option("--image", type=Name("image"), multiple=True, help="Disk made from this image; may be repeated."),
    click.option("--disk", multiple=True, metavar="KEY=VALUE,…", help="Disk, such as size=10G or image=web,size=20G."),
    click.option("--net", type=Name("network"), multiple=True, help="Interface on this network; may be repeated."),
    click.option("--nic", multiple=True, metavar="KEY=VALUE,…", help="Interface, such as network=web,ipv4=10.0.0.9."),
    click.option("--no-net", is_flag=True, help="No interface, not even on the default network."),
    click.option("--vcpus", type=click.IntRange(1), help="Virtual CPUs (default 1)."),
    click.option("--cpu-percent", type=click.IntRange(1), help="Physical CPU, percent of a core (default 100 a vCPU)."),
    click.option("--memory", "-m", type=SIZE, help=f"Memory, for example 2G (default {DEFAULT_MEMORY_MIB}M)."),
    click.option("--requirement", metavar="EXPR", help="Which hosts will do, for example 'FREE_MEMORY > 2097152'."),
    click.option("--rank", metavar="EXPR", help="Which of them is best: a number to maximise, for example FREE_CPU."),
    policy_option("Way to rank hosts; may be repeated."),
    click.option("--priority", type=int, help="Order among pending VMs, higher first."),
    click.option("--hostname", help="Host name of the guest (default: the VM's name)."),
    click.option("--ssh-key", multiple=True, metavar="FILE|KEY", help="Public key for the guest; may be repeated."),
    click.option("--username", help="User of the guest that the keys belong to."),
    click.option("--start-script", metavar="FILE", help="Script that the guest runs at the end of its boot."),
    click.option("--user-data", metavar="FILE", help="User data for cloud-init."),
    click.option("--variable", type=KEY_VALUE, multiple=True, metavar="KEY=VALUE", help="Variable for the guest."),
    click.option("--secret", type=KEY_VALUE, multiple=True, metavar="KEY=VALUE", help="The same, never shown again."),
    click.option("--context-file", type=KEY_VALUE, multiple=True, metavar="NAME=FILE", help="File beside the context."),
    click.option("--label", type=KEY_VALUE, multiple=True, metavar="KEY=VALUE", help="Label of your own."),
    click.option("--description", help="Text of your own."),
    click.option("--restart", type=click.Choice(("on-crash", "never", "always")), help="If the guest ends by itself."),
    click.option(
        "--on-host-loss",
        type=click.Choice(("leave", "restart", "restart-with-new-disks")),
        help="If its host is lost; disks die with it, so restart is for VMs without any.",
    ),
)


def shape_options(function: F) -> F:
    """All flags that shape a VM."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@dataclass(frozen=True)
class Shape:
    """The values of these flags, under their names."""

    file: str | None
    image: Sequence[str]
    disk: Sequence[str]
    net: Sequence[str]
    nic: Sequence[str]
    no_net: bool
    vcpus: int | None
    cpu_percent: int | None
    memory: int | None
    requirement: str | None
    rank: str | None
    policy: Sequence[WeightedPolicy]
    priority: int | None
    hostname: str | None
    ssh_key: Sequence[str]
    username: str | None
    start_script: str | None
    user_data: str | None
    variable: Sequence[tuple[str, str]]
    secret: Sequence[tuple[str, str]]
    context_file: Sequence[tuple[str, str]]
    label: Sequence[tuple[str, str]]
    description: str | None
    restart: str | None
    on_host_loss: str | None

    def template(self, *, needs_memory: bool) -> VmTemplate:
        """The file's template with the flags over it: single values win, disks, interfaces and keys are added."""
        template = VmTemplate()
        if self.file:
            name = "standard input" if self.file == "-" else self.file
            template = read_yaml(_text(file_bytes(self.file, "the template")), VmTemplate, name)
        flags = self._flags()
        if flags.policies:
            template.ClearField("policies")
        template.MergeFrom(flags)
        if needs_memory and not template.memory_mib and not self.file:
            template.memory_mib = DEFAULT_MEMORY_MIB
        return template

    def _flags(self) -> VmTemplate:
        template = VmTemplate(
            vcpus=self.vcpus or 0,
            cpu_percent=self.cpu_percent or 0,
            memory_mib=self.memory or 0,
            no_default_network=self.no_net,
            requirement=self.requirement or "",
            rank=self.rank or "",
            policies=self.policy,
            priority=self.priority or 0,
            description=self.description or "",
            labels=dict(self.label),
        )
        template.restart_policy = _RESTART[self.restart]
        template.on_host_loss = _ON_HOST_LOSS[self.on_host_loss]
        template.disks.extend(DiskTemplate(image=image) for image in self.image)
        template.disks.extend(_disk(text) for text in self.disk)
        template.nics.extend(NicTemplate(network=network) for network in self.net)
        template.nics.extend(_nic(text) for text in self.nic)
        context = self._context()
        if context.ByteSize():
            template.context.CopyFrom(context)
        return template

    def _context(self) -> Context:
        files = {name: file_bytes(path, "the context file") for name, path in self.context_file}
        size = sum(map(len, files.values()))
        if size > CONTEXT_FILES_BYTES:
            raise usage(f"the context files take {size} bytes, more than {CONTEXT_FILES_BYTES}: put them into an image")
        return Context(
            hostname=self.hostname or "",
            username=self.username or "",
            ssh_keys=[_ssh_key(key) for key in self.ssh_key],
            start_script=_text(file_bytes(self.start_script, "the start script")) if self.start_script else "",
            user_data=file_bytes(self.user_data, "the user data") if self.user_data else b"",
            variables=dict(self.variable),
            secret_variables=dict(self.secret),
            files=files,
        )


def _disk(text: str) -> DiskTemplate:
    return read_pairs(text, DiskTemplate, "--disk", bare="image", aliases={"size": "size_mib"})


def _nic(text: str) -> NicTemplate:
    return read_pairs(text, NicTemplate, "--nic", bare="network", aliases={"net": "network", "ip": "ipv4"})


def _ssh_key(text: str) -> str:
    """The key itself, or that of a file. A private key is refused before it goes anywhere."""
    if text.startswith(_KEY_KINDS):
        return text
    path = str(Path(text).expanduser())
    key = _text(file_bytes(path, "the SSH key")).strip()
    if "PRIVATE KEY" in key:
        raise usage(f"{text} is a private key; give the public one, {text}.pub")
    return key


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as err:
        raise usage("the file is not text (UTF-8)") from err
