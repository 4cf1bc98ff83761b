"""Policies of placement: what each does to a small cloud. That a plan keeps to them is proven in test_plan."""

from __future__ import annotations

import numpy as np
import pytest

from moln.compute.v1 import host_pb2, placement_pb2, template_pb2
from services.scheduler.core.amounts import Amounts
from services.scheduler.core.columns import HostColumns
from services.scheduler.core.explanation import explain
from services.scheduler.core.hosts import HostFacts, facts
from services.scheduler.core.loads import Load
from services.scheduler.core.plan import Demand, plan
from services.scheduler.core.policies import Policies, for_clusters, policies_from_words
from services.scheduler.core.shapes import Shape, shape, shape_key

GIB = 1 << 20
"""In KiB."""
P = placement_pb2.PlacementPolicy


def wish(*policies: tuple[placement_pb2.PlacementPolicy, float], rank: str = "", cpu: int = 100) -> Shape:
    template = template_pb2.VmTemplate(cpu_percent=cpu, memory_mib=1024, rank=rank)
    template.policies.extend(placement_pb2.WeightedPolicy(policy=each, weight=weight) for each, weight in policies)
    return shape(shape_key(template, 0))


def cloud(*hosts: HostFacts) -> HostColumns:
    made = HostColumns()
    made.apply(hosts)
    return made


def host(host_id: int, cores: int = 4, cluster_id: int = 0, **attributes: str) -> HostFacts:
    total = Amounts(cores * 100, cores * 2 * GIB)
    return HostFacts(host_id, f"h{host_id}", total=total, attributes={"CLUSTER_ID": str(cluster_id), **attributes})


def placed(columns: HostColumns, wanted: Shape, count: int) -> list[int]:
    rows = plan(columns, [Demand(wanted, np.zeros(count, np.int64), np.arange(count))])[0]
    found: list[int] = columns.ids[rows].tolist()
    return found


def test_packing_fills_one_host_after_the_other_and_the_fullest_first() -> None:
    columns = cloud(host(1), host(2), host(3))
    columns.hold(2, Amounts(200, 2 * GIB))
    assert placed(columns, wish((P.PLACEMENT_POLICY_PACKING, 0)), 7) == [2, 2, 1, 1, 1, 1, 3]


def test_striping_evens_out_shares_of_unlike_hosts() -> None:
    columns = cloud(host(1, 4), host(2, 12))
    found = placed(columns, wish((P.PLACEMENT_POLICY_STRIPING, 0)), 8)
    assert (found.count(1), found.count(2)) == (2, 6)


def test_load_aware_goes_by_what_is_measured_and_not_by_what_is_given_out() -> None:
    columns = cloud(host(1), host(2))
    columns.hold(1, Amounts(300, 3 * GIB))
    columns.measure(1, Load(5.0, 5.0, 1))
    columns.measure(2, Load(60.0, 60.0, 1))
    wanted = wish((P.PLACEMENT_POLICY_LOAD_AWARE, 0))
    assert placed(columns, wanted, 1) == [1]
    columns.measure(1, Load(99.0, 99.0, 2))
    assert placed(columns, wanted, 1) == [2]


def test_many_vms_at_once_do_not_all_run_to_the_idlest_host() -> None:
    columns = cloud(*(HostFacts(host_id, f"h{host_id}", total=Amounts(800, 8 * GIB)) for host_id in (1, 2, 3)))
    for host_id, percent in ((1, 0.0), (2, 12.5), (3, 37.5)):
        columns.measure(host_id, Load(percent, percent, 1))
    found = placed(columns, wish((P.PLACEMENT_POLICY_LOAD_AWARE, 0)), 6)
    assert [found.count(host_id) for host_id in (1, 2, 3)] == [3, 2, 1]
    columns.hold_rows(np.array([0, 0, 0, 1, 1, 2]), Amounts(100, GIB))
    columns.measure(1, Load(0.0, 0.0, 1))
    again = placed(columns, wish((P.PLACEMENT_POLICY_LOAD_AWARE, 0)), 1)
    assert again == [2], "the same measurement again changes nothing: 3/8, 3/8 and 4/8 count as in use"
    columns.measure(1, Load(0.0, 0.0, 2))
    assert placed(columns, wish((P.PLACEMENT_POLICY_LOAD_AWARE, 0)), 1) == [1]


def test_a_host_of_which_nothing_was_measured_counts_by_what_is_given_out() -> None:
    columns = cloud(host(1), host(2))
    columns.hold(1, Amounts(400, 0))
    columns.measure(2, Load(90.0, 90.0, 1))
    columns.measure(2, None)
    assert placed(columns, wish((P.PLACEMENT_POLICY_LOAD_AWARE, 0), cpu=0), 1) == [2]


def test_a_measurement_stays_with_its_host_when_others_come_and_go() -> None:
    columns = cloud(host(2), host(3))
    columns.measure(3, Load(50.0, 50.0, 7))
    columns.apply([host(1), host(4)], [2])
    assert columns.ids.tolist() == [1, 3, 4]
    assert columns.loads.percent[0].tolist()[1] == 50.0
    assert np.isnan(columns.loads.percent[0][[0, 2]]).all()
    columns.apply([], [3])
    columns.apply([host(3)])
    assert np.isnan(columns.loads.percent[0]).all()
    columns.measure(3, Load(50.0, 50.0, 7))
    assert columns.loads.percent[0][1] == 50.0


def test_a_preference_is_a_label_of_the_host_or_of_its_cluster() -> None:
    def told(labels: dict[str, str], cluster_labels: dict[str, str]) -> str | None:
        spec = host_pb2.HostSpec(name="a", labels=labels)
        return facts(1, spec, None, None, "c", cluster_labels).attributes.get("PREFERENCE")

    assert told({"preference": "7"}, {"preference": "3"}) == "7"
    assert told({}, {"preference": "3"}) == "3"
    assert told({}, {}) is None
    columns = cloud(host(1), host(2, PREFERENCE="1"), host(3, PREFERENCE="-1"))
    assert placed(columns, wish((P.PLACEMENT_POLICY_PREFERENCE, 0)), 9) == [2] * 4 + [1] * 4 + [3]


def test_weights_decide_between_policies() -> None:
    columns = cloud(host(1), host(2, PREFERENCE="20"))
    columns.hold(1, Amounts(200, 4 * GIB))
    packing, preference = P.PLACEMENT_POLICY_PACKING, P.PLACEMENT_POLICY_PREFERENCE
    assert placed(columns, wish((packing, 1), (preference, 1)), 1) == [1]
    assert placed(columns, wish((packing, 1), (preference, 5)), 1) == [2]


def test_an_own_rank_counts_beside_policies_and_is_shown_part_by_part() -> None:
    columns = cloud(host(1), host(2))
    wanted = wish((P.PLACEMENT_POLICY_STRIPING, 2), (P.PLACEMENT_POLICY_RANK, 0), rank="ID / 10")
    (first, second) = explain(columns, wanted, 5).candidates
    assert first.host_id == 2
    assert first.score == pytest.approx(2.2)
    assert [(part.name, part.weight, part.value) for part in second.parts] == [
        ("striping", 2.0, 1.0), ("rank", 1.0, 0.1),
    ]  # fmt: skip


def test_each_host_is_ranked_by_its_cluster_where_the_vm_does_not_say() -> None:
    columns = cloud(host(1, cluster_id=1), host(2, cluster_id=1), host(3), host(4))
    packing: Policies = ((P.PLACEMENT_POLICY_PACKING, 10.0),)
    columns.hold(2, Amounts(100, GIB))
    columns.default_rank = for_clusters((), {1: packing, 7: ()})
    assert placed(columns, wish(), 6) == [2, 2, 2, 3, 4, 3]
    assert placed(columns, wish((P.PLACEMENT_POLICY_STRIPING, 0)), 2) == [1, 3]
    columns.default_rank = for_clusters((), {1: ()})
    assert columns.default_rank.is_empty
    columns.default_rank = for_clusters(packing, {})
    assert placed(columns, wish(), 4) == [2, 2, 2, 1]


def test_settings_name_policies_by_words() -> None:
    assert policies_from_words(["packing=2", "load-aware"]) == (
        (P.PLACEMENT_POLICY_PACKING, 2.0), (P.PLACEMENT_POLICY_LOAD_AWARE, 1.0),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ("paking", "there is no policy 'paking' for all hosts; there are: packing, striping, load-aware, preference"),
        ("rank", "there is no policy 'rank' for all hosts"),
        ("packing=much", "'packing=much': the weight is a number above 0"),
        ("packing=-1", "the weight is a number above 0"),
        ("packing=nan", "the weight is a number above 0"),
    ],
)
def test_a_bad_word_of_settings_is_refused(word: str, problem: str) -> None:
    with pytest.raises(ValueError, match="packing|rank|paking") as caught:
        policies_from_words([word])
    assert problem in str(caught.value)
