"""YAML templates: what is meant is read, what is wrong is named with its line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moln.compute.v1.template_pb2 import Context, DiskTemplate, RestartPolicy, VmTemplate
from services.cli.documents import as_text, plain, yaml_text
from services.cli.exits import CliError, Exit
from services.cli.templates import read_pairs, read_yaml

FULL = """\
vcpus: 2
memory_mib: 4G
disks:
  - image: debian
    size_mib: 20G
  - {size_mib: 512, filesystem: swap}
nics:
  - network: front
context:
  ssh_keys: [ssh-ed25519 AAAA anna]
  start_script: |
    #!/bin/sh
    echo ready
  variables: {ROLE: web}
  files:
    motd: hello
restart_policy: never
labels:
  tier: front
no_default_network: yes
"""


def read(text: str) -> VmTemplate:
    return read_yaml(text, VmTemplate, "web.yaml")


def test_a_template_is_the_message_in_its_own_names() -> None:
    template = read(FULL)
    assert (template.vcpus, template.memory_mib, template.disks[0].size_mib) == (2, 4096, 20480)
    assert template.restart_policy == RestartPolicy.RESTART_POLICY_NEVER
    assert template.context.files["motd"] == b"hello"
    assert template.context.start_script == "#!/bin/sh\necho ready\n"
    assert template.no_default_network


def test_what_is_printed_can_be_read_again() -> None:
    template = read(FULL)
    template.context.files["binary"] = b"\xff\x00\xfe"
    assert read(yaml_text(plain(template, as_text))) == template


@given(
    st.builds(
        VmTemplate,
        vcpus=st.integers(0, 512),
        memory_mib=st.integers(0, 2**40),
        description=st.text(),
        labels=st.dictionaries(st.text(), st.text(), max_size=3),
        disks=st.lists(st.builds(DiskTemplate, image=st.text(), size_mib=st.integers(0, 2**40)), max_size=3),
        context=st.builds(
            Context,
            start_script=st.text(),
            files=st.dictionaries(st.text(), st.binary(), max_size=2),
            user_data=st.binary(),
        ),
        restart_policy=st.sampled_from([1, 2, 3]),
    )
)
def test_every_template_survives_being_printed_and_read(template: VmTemplate) -> None:
    assert read(yaml_text(plain(template, as_text))) == template


def test_an_empty_file_is_an_empty_template() -> None:
    assert read("") == VmTemplate()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("vcpus: 2\nmemroy_mib: 1", "line 2: unknown key 'memroy_mib' (did you mean 'memory_mib'?)"),
        ("disks:\n- imgae: x", "line 2: unknown key 'imgae' (did you mean 'image'?)"),
        ("nics:\n- zzz: x", "line 2: unknown key 'zzz' (known keys: nic_id, network,"),
        ("vcpus: two", "line 1: 'vcpus': 'two' is no whole number"),
        ("vcpus: -1", "line 1: 'vcpus': -1 is not between 0 and"),
        ("memory_mib: 4X", "line 1: 'memory_mib': '4X' is no size"),
        (
            "restart_policy: nevr",
            "line 1: 'restart_policy': 'nevr' is none of ON_CRASH, NEVER, ALWAYS (did you mean 'NEVER'?)",
        ),
        ("disks: debian", "line 1: 'disks' takes a list"),
        ("vcpus: [1]", "line 1: 'vcpus' takes a single value"),
        ("vcpus: 1\nvcpus: 2", "line 2: 'vcpus' is here twice"),
        ("- a", "line 1: expected `key: value` lines"),
        ("vcpus: 1\n  memory_mib: : 2", "line 2: not YAML"),
        ("no_default_network: perhaps", "line 1: 'no_default_network' takes true or false"),
    ],
)
def test_a_mistake_is_named_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(CliError) as caught:
        read(text)
    assert f"web.yaml, {problem}" in caught.value.message
    assert caught.value.code is Exit.USAGE


def test_a_disk_is_said_in_pairs_or_by_its_image_alone() -> None:
    def disk(text: str) -> DiskTemplate:
        return read_pairs(text, DiskTemplate, "--disk", bare="image", aliases={"size": "size_mib"})

    assert disk("debian") == DiskTemplate(image="debian")
    assert disk("image=debian,size=20G,bus=scsi") == DiskTemplate(image="debian", size_mib=20480, bus="scsi")
    with pytest.raises(CliError, match=r"--disk 'szie=1G': unknown key 'szie' \(did you mean 'size'\?\)"):
        disk("szie=1G")
