"""How large a cluster is, as its dashboard says it, and what is short for a step."""

from typing import Any

from flexcore_ray.capacity import Capacity, capacity, demand

from flexcore.model.workflow import Requirements

_ID = "58f7c88a3788ed4c5f67807e12f0073789a6fac679a49317ecf7750e"
NODES: list[dict[str, Any]] = [  # as recorded from a single node; the second is a dead one
    {
        "node_id": _ID,
        "is_head_node": True,
        "state": "ALIVE",
        "resources_total": {
            "CPU": 4.0,
            "object_store_memory": 7424550912.0,
            "node:127.0.0.1": 1.0,
            "memory": 17323952128.0,
            "node:__internal_head__": 1.0,
        },
    },
    {"node_id": "ff", "state": "DEAD", "resources_total": {"CPU": 99.0}},
]
FIXED: dict[str, Any] = {  # likewise; the dashboard spells the keys anew
    "clusterStatus": {
        "autoscalerReport": {
            "activeNodes": {"node58F7C88A3788Ed4C5F67807E12F0073789A6Fac679A49317Ecf7750E": 1},
            "idleNodes": None,
            "pendingNodes": [],
            "pendingLaunches": {},
        }
    }
}
SCALING: dict[str, Any] = {"clusterStatus": {"autoscalerReport": {"activeNodes": {"headGroup": 1, "workers": 2}}}}


def test_only_nodes_that_are_up_count() -> None:
    found = capacity(NODES, FIXED)

    assert (found.limits.cpu, found.limits.memory, found.limits.gpu) == (4.0, 17323952128, 0.0)
    assert (found.autoscales, found.tags) == (False, frozenset())


def test_a_cluster_that_scales_itself_has_no_limit() -> None:
    found = capacity(NODES, SCALING)

    assert found.autoscales
    assert found.limits.cpu is None


def test_nodes_on_their_way_show_that_it_scales() -> None:
    report = {"clusterStatus": {"autoscalerReport": {"pendingLaunches": {"workers": 1}}}}

    assert capacity(NODES, report).autoscales


def test_a_report_without_a_cluster_says_nothing() -> None:
    assert not capacity(NODES, {}).autoscales
    assert not capacity(NODES, {"clusterStatus": None}).autoscales


def test_a_shortage_is_named_with_both_figures() -> None:
    found = capacity(NODES, FIXED)

    assert found.shortage(Requirements(cpu=4, memory=1 << 30), {}) == ""
    assert found.shortage(Requirements(cpu=8), {}) == "the step requires 8 CPU, the largest node has 4 CPU"
    assert found.shortage(Requirements(gpu=1), {}) == "the step requires 1 GPU, the largest node has 0 GPU"
    assert "64.00 GiB" in found.shortage(Requirements(memory=64 << 30), {})
    assert "'tpu'" in found.shortage(Requirements(), {"tpu": 1})


def test_what_no_single_node_has_is_short() -> None:
    found = Capacity(({"CPU": 8.0, "memory": 1e9}, {"CPU": 1.0, "GPU": 2.0, "memory": 1e9}))

    assert found.shortage(Requirements(cpu=8, gpu=2), {}) == "no single node has 8 CPU, 2 GPU"


def test_a_tag_that_is_a_resource_sends_work_to_its_nodes() -> None:
    tags = Capacity(({"CPU": 1.0, "special": 1.0, "accelerator_type:A100": 1.0},)).tags

    assert tags == {"special"}
    assert demand(Requirements(cpu=1, tags=("special", "eu")), tags, {}) == {"special": 0.001, "CPU": 1.0}
