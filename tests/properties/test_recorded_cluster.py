"""The plan of a sidecar or gateway is the same bytes from local files and from the same objects recorded in a cluster."""

import pytest

from compile.world import World
from properties.recorded import recorded
from properties.worlds import CASES, database, decoded, differing, held, scene, workloads

IN_A_CLUSTER = [folder for folder in CASES if folder.name != "published_boolean_match"]
"""A cluster's API server refuses a boolean where Istio's schema has text."""


@pytest.mark.parametrize("folder", IN_A_CLUSTER, ids=lambda folder: folder.name)
def test_the_same_bytes_from_files_and_from_a_recorded_list(folder):
    raws = scene(folder)
    local = database(decoded(raws))
    cluster = World.of(recorded(raws))
    assert [found for found in cluster.source.problems if found.is_error] == []
    assert any(key.kind == "EndpointSlice" for key in cluster.source.objects) or not _selected(raws)
    compared = 0
    for key in workloads(raws):
        found = held(local, key)
        assert differing(found, held(cluster.db, key)) == []
        compared += sum(len(resources) for resources in (found or {}).values())
    assert compared > 5


def _selected(raws):
    """Pods that some Service selects."""
    selectors = [raw["spec"].get("selector") for raw in raws if raw["kind"] == "Service"]
    pods = [raw["metadata"]["labels"] for raw in raws if raw["kind"] == "Pod"]
    return [labels for labels in pods if any(one and one.items() <= labels.items() for one in selectors)]
