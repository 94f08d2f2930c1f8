"""Every right of the control plane, and why; each is used, and each use has one."""

from typing import Any

import pytest

from tulle.app.cluster import duties, gateways, learned
from tulle.dialects.gateway_api.kinds import KINDS as GATEWAY_API
from tulle.installing import kinds
from tulle.installing.installation import Request, objects
from tulle.installing.naming import AUTHORITY, CONFIG_MAPS_RIGHT, SECRETS_RIGHT, TRUST_ROOT
from tulle.installing.rights import READ, RIGHTS, Right, Where, described
from tulle.installing.values import values_of
from tulle.kube.leases import LEASES
from tulle.sources.kubernetes import BY_PLACE, kinds_in_use

PLURALS = {
    "Namespace": "namespaces",
    "Service": "services",
    "Pod": "pods",
    "EndpointSlice": "endpointslices",
    "ServiceCIDR": "servicecidrs",
    **{kind: called.plural for kind, called in kinds.CALLED.items()},
    **kinds._GATEWAY_API,
}


def held(where: Where, verbs: tuple[str, ...]) -> set[tuple[str, str]]:
    return {
        (right.group, resource)
        for right in RIGHTS
        if right.where is where and set(verbs) <= set(right.verbs) and not right.names
        for resource in right.resources
    }


def test_the_list_of_rights(capsys: pytest.CaptureFixture[str]) -> None:
    """The list itself, for people: `pytest -s`."""
    with capsys.disabled():
        print()
        for right in RIGHTS:
            print("  ", described(right))
    assert all(right.why and "\n" not in right.why for right in RIGHTS)


def test_what_is_read_is_what_the_source_follows() -> None:
    followed = {(kind.group, PLURALS[kind.kind]) for kind in kinds_in_use()}
    assert held(Where.CLUSTER, READ) == followed
    by_place = {(group, f"{kind.lower()}s") for group, kind in BY_PLACE}
    assert held(Where.GATEWAYS, READ) | held(Where.NAMED, READ) == by_place
    assert held(Where.OWN, READ) == {(learned.RESOURCE.group, learned.RESOURCE.plural)}


def test_no_secret_is_read_across_the_cluster() -> None:
    wide = [one for one in RIGHTS if one.where is Where.CLUSTER and "secrets" in one.resources]
    assert wide == []
    assert all(right.resources != ("*",) and right.verbs != ("*",) and right.group != "*" for right in RIGHTS)


def test_a_named_config_map_opens_no_secret() -> None:
    """Two roles, bound apart: a policy that names CA certificates gives us no more of its namespace."""
    assert held(Where.GATEWAYS, READ) == {("", "secrets")}
    assert held(Where.NAMED, READ) == {("", "configmaps")}
    made = {
        one["metadata"]["name"]: one for one in objects(Request(values_of("minimal"))) if one["kind"] == "ClusterRole"
    }
    for role, kind in ((SECRETS_RIGHT, "secrets"), (CONFIG_MAPS_RIGHT, "configmaps")):
        (found,) = [one for name, one in made.items() if name.startswith(role)]
        assert found["rules"] == [{"apiGroups": [""], "resources": [kind], "verbs": list(READ)}]


def test_statuses_are_those_of_kinds_that_are_read() -> None:
    has_status = {
        (right.group, resource.removesuffix("/status"))
        for right in RIGHTS
        for resource in right.resources
        if resource.endswith("/status")
    }
    istio = {(group, resource) for group, resources in kinds.groups() for resource in resources}
    gateway_api = {(kind.group, PLURALS[kind.kind]) for kind in GATEWAY_API if kind.kind != "ReferenceGrant"}
    assert has_status == istio | gateway_api


def test_gateways_are_made_of_what_may_be_made() -> None:
    made = {(one.group, one.plural) for one in gateways.RESOURCES.values()}
    assert held(Where.CLUSTER, ("create", "patch", "delete")) == made


def named(where: Where) -> list[Right]:
    return [right for right in RIGHTS if right.where is where and right.names]


def test_names_are_those_that_the_control_plane_writes() -> None:
    assert [right.names for right in named(Where.OWN)] == [(AUTHORITY,)]
    maps = [right for right in named(Where.CLUSTER) if right.resources == ("configmaps",)]
    assert [right.names for right in maps] == [(TRUST_ROOT,)]
    assert (LEASES.group, LEASES.plural) in held(Where.OWN, ("create", "update", "patch", "delete"))
    bindings = duties.ROLE_BINDINGS
    assert [one.group for one in RIGHTS if one.resources == (bindings.plural,)] == [bindings.group]


def rules(made: tuple[dict[str, Any], ...]) -> int:
    return sum(len(one["rules"]) for one in made if one["kind"].endswith("Role"))


def test_values_take_rights_away() -> None:
    everything = rules(objects(Request(values_of("minimal"))))
    assert everything == len(RIGHTS)
    without = values_of(
        "minimal",
        {"gatewayController": {"enabled": False}, "secrets": {"followGateways": False}},
        {"injectionWebhook": {"enabled": False}, "validationWebhook": {"enabled": False}},
    )
    gone = [right for right in RIGHTS if right.needs]
    assert rules(objects(Request(without))) == everything - len(gone)
    assert not any("bind" in right.verbs for right in RIGHTS if not right.needs)
