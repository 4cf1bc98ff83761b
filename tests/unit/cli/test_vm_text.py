"""`moln vm show` in words."""

from __future__ import annotations

from moln.compute.v1.template_pb2 import DiskTemplate, VmTemplate
from moln.compute.v1.vm_pb2 import Vm, VmSpec, VmVolumes, Volume
from services.cli.vm_text import vm_lines

GIB = 1024**3


def test_a_disk_is_shown_as_large_as_it_was_made_whatever_it_was_made_of() -> None:
    def shown(made_of: int, asked_mib: int) -> str:
        disk, volume = DiskTemplate(disk_id=0, size_mib=asked_mib), Volume(disk_id=0, virtual_size_bytes=made_of)
        vm = Vm(spec=VmSpec(template=VmTemplate(disks=[disk])), volumes=VmVolumes(disks=[volume]))
        return "\n".join(vm_lines(vm))

    assert "empty  11 GiB" in shown(10 * GIB, 11 * 1024), "after resize-disk"
    assert "empty  10 GiB" in shown(10 * GIB, 0)
