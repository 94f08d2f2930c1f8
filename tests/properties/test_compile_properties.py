"""What always holds of compiled bytes, whatever the configuration."""

import copy
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.mutating import mutations
from properties.worlds import CASES, database, decoded, differing, held, put, remove, scene, workloads
from tulle.compile.views import view_of
from tulle.model.keys import WorkloadKey

every_golden = pytest.mark.parametrize("folder", CASES, ids=lambda folder: folder.name)
PLACES = [
    WorkloadKey("Kubernetes", *place) for place in (("default", "client"), ("default", "web-1"), ("istio-system", "gw"))
]


@given(st.integers(0, 2**32), st.integers(2, 5))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_incremental_is_the_same_as_from_scratch(seed, steps):
    rng = random.Random(seed)
    versions = [decoded(raws) for raws in mutations(seed, steps)]
    now = {one.key: one for one in versions[0]}
    db = database(now.values())
    for key in PLACES:
        held(db, key)
    for later in versions[1:]:
        chosen = rng.sample(later, k=min(len(later), rng.randint(1, 4)))
        gone = rng.sample(list(now.values()), k=rng.randint(0, min(2, len(now))))
        put(db, *chosen)
        remove(db, *(one for one in gone if one.key not in {other.key for other in chosen}))
        for one in gone:
            now.pop(one.key, None)
        now.update({one.key: one for one in chosen})
        scratch = database(now.values())
        for key in PLACES:
            assert differing(held(db, key), held(scratch, key)) == []


@every_golden
def test_equal_views_have_equal_bytes(folder):
    raws = scene(folder)
    twins = [copy.deepcopy(raw) for raw in raws if raw["kind"] == "Pod"]
    for number, twin in enumerate(twins):
        twin["metadata"] |= {"name": f"{twin['metadata']['name']}-twin", "uid": f"twin-{number}"}
        twin["status"]["podIP"] = f"10.99.0.{number + 1}"
    db = database(decoded([*raws, *twins]))
    for key in workloads(raws):
        twin = WorkloadKey(key.cluster, key.namespace, f"{key.name}-twin")
        assert view_of(db, key) == view_of(db, twin)
        assert differing(held(db, key), held(db, twin)) == []


@every_golden
def test_order_of_arrival_does_not_matter(folder):
    things = decoded(scene(folder))
    places = workloads(scene(folder))
    at_once = database(things)
    shuffled = random.Random(folder.name).sample(things, len(things))
    one_by_one = database([])
    for number, thing in enumerate(shuffled):
        put(one_by_one, thing)
        if number % 4 == 0:
            held(one_by_one, places[number % len(places)])
    for key in places:
        assert differing(held(at_once, key), held(one_by_one, key)) == []


@every_golden
def test_adding_and_removing_gives_the_same_bytes(folder):
    things = decoded(scene(folder))
    keys = {one.key for one in things}
    rng = random.Random(folder.name)
    others = [raw for other in rng.sample(CASES, 4) for raw in scene(other)]
    added = list({one.key: one for one in decoded(others) if one.key not in keys}.values())
    db = database(things)
    before = {key: held(db, key) for key in workloads(scene(folder))}
    put(db, *added)
    assert any(differing(held(db, key), before[key]) for key in before)
    remove(db, *added)
    for key, found in before.items():
        assert differing(held(db, key), found) == []
    db.collect()
    for key, found in before.items():
        assert differing(held(db, key), found) == []
