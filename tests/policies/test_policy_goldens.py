"""Every golden of every kind, and that each kind has one."""

import pytest
from policy_goldens import CASES, HERE, REWRITE, cluster_of, kind_of, parts, rendered, shape, specs_of, written

from tulle.model.objects import MeshSettings
from tulle.policies import KINDS


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}/{case.stem}")
def test_golden(case):
    given, expected = parts(case)
    found = written(rendered(kind_of(case), specs_of(case)))
    if REWRITE:
        case.write_text(f"{given}---\n{found}")
        expected = found
    assert found == expected


def test_every_kind_has_goldens_and_every_folder_a_kind():
    assert {case.parent.name for case in CASES} == {kind.name for kind in KINDS}
    folders = {folder.name for folder in HERE.iterdir() if folder.is_dir() and not folder.name.startswith("__")}
    assert folders == {kind.name for kind in KINDS}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}/{case.stem}")
def test_the_first_line_says_what_the_case_shows(case):
    first = case.read_text().partition("\n")[0]
    assert first.startswith("# ")
    assert len(first) > 20


def test_no_two_kinds_set_the_same_field():
    owners = {}
    for case in CASES:
        kind = kind_of(case)
        for spec in specs_of(case):
            fragments = [kind.on_cluster(spec)] if kind.on_cluster else []
            for fragment in fragments:
                for part in fragment.__struct_fields__:
                    for field in getattr(fragment, part):
                        assert owners.setdefault((part, field), kind.name) == kind.name
    assert len(owners) > 5


def test_filters_of_a_chain_in_order():
    outbound = [name for kind in KINDS if kind.http_filters for name, _ in kind.http_filters()]
    inbound = [name for kind in KINDS if kind.inbound_http_filters for name, _ in kind.inbound_http_filters()]
    assert outbound == ["envoy.filters.http.cors", "envoy.filters.http.fault"]
    assert inbound == ["tulle.rbac.deny", "tulle.rbac.allow"]


def test_what_a_mesh_does_unless_told_otherwise():
    """Istio's defaults, of the kinds that have one."""
    made = {kind.name: (kind, kind.default(MeshSettings())) for kind in KINDS if kind.default}
    assert set(made) == {"retry", "load_balancing", "connection_pool"}
    kind, spec = made["retry"]
    assert shape(kind.on_route(spec, cluster_of))["action"]["retry_policy"]["num_retries"] == 2
    assert kind.on_route(kind.default(MeshSettings(default_retry_attempts=0)), cluster_of).action == {}
    kind, spec = made["connection_pool"]
    (limits,) = shape(kind.on_cluster(spec))["cluster"]["circuit_breakers"]["thresholds"]
    assert {limits.pop(name) for name in list(limits) if name.startswith("max_")} == {2**32 - 1}
    kind, spec = made["load_balancing"]
    policy = shape(kind.on_cluster(spec))["cluster"]["load_balancing_policy"]["policies"][0]
    assert policy["typed_extension_config"]["name"] == "envoy.load_balancing_policies.least_request"
