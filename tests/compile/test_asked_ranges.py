"""Where sidecars on demand ask for destinations that they do not know."""

import tempfile
from pathlib import Path

from compile.world import CLUSTER, World
from tulle.compile.keyed import mesh_ranges
from tulle.model.objects import MeshSettings
from tulle.sources.files import FileSource

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.3.240.7, ports: [{port: 80}]}
"""
RANGE = """
---
apiVersion: networking.k8s.io/v1
kind: ServiceCIDR
metadata: {name: kubernetes}
spec: {cidrs: [10.3.240.0/20, "fd00:10::/112"]}
"""
ALLOCATED = "240.240.0.0/16"


def test_the_api_says_where_services_have_their_addresses() -> None:
    world = World.of(SERVICE + RANGE)
    assert mesh_ranges(world.db, CLUSTER) == ("10.3.240.0/20", ALLOCATED, "fd00:10::/112")
    world.put(RANGE.replace("name: kubernetes", "name: more").replace("10.3.240.0/20", "10.9.0.0/16"))
    assert mesh_ranges(world.db, CLUSTER) == ("10.3.240.0/20", "10.9.0.0/16", ALLOCATED, "fd00:10::/112")


def test_the_setting_goes_before_it() -> None:
    world = World.of(SERVICE + RANGE, mesh=MeshSettings(service_cidrs=("10.3.0.0/16",)))
    assert mesh_ranges(world.db, CLUSTER) == ("10.3.0.0/16", ALLOCATED)


def test_without_either_it_is_around_the_addresses_there_are() -> None:
    assert mesh_ranges(World.of(SERVICE).db, CLUSTER) == ("10.3.0.0/16", ALLOCATED)


def test_what_is_no_range_is_refused() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "in.yaml"
        path.write_text(RANGE.replace("10.3.240.0/20", "ten"))
        source = FileSource([path], cluster=CLUSTER)
        source.reload()
        assert [one.problem.code for one in source.problems] == ["TUL0435"]
        assert not source.objects
