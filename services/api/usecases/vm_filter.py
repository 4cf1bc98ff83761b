"""What lists of VMs can be filtered by. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from moln.compute.v1 import vm_pb2
from services.api.core.verbs import state_name
from services.api.index.hosts import HostIndex
from services.api.index.vms import VmRecord
from services.common.filters import Vocabulary

Item = tuple[VmRecord, HostIndex]


def _labels(item: Item) -> Mapping[str, str]:
    spec = item[0].spec
    return dict(spec.value.template.labels) if spec is not None else {}


def _owner(item: Item) -> str:
    spec = item[0].spec
    return str(spec.value.owner) if spec is not None else ""


VMS: Vocabulary[Item] = Vocabulary(
    keys={
        "id": lambda item: item[0].id,
        "name": lambda item: item[0].name,
        "state": lambda item: state_name(item[0].view.state),
        "reason": lambda item: item[0].view.reason,
        "host": lambda item: (item[1].name_of(item[0].view.host_id), str(item[0].view.host_id)),
        "owner": _owner,
        "uid": lambda item: item[0].uid,
        "ipv4": lambda item: item[0].first_ipv4(),
    },
    words={"state": {state_name(each) for each in vm_pb2.VmState.values()}},
    labels=_labels,
)
