"""Which pods the API server asks about: exactly those that injection would take, each by one webhook, and never the system's."""

import itertools
from collections.abc import Mapping
from typing import Any

import pytest

from tulle.dialects.kubernetes.injection import Role, injects
from tulle.installing import installation
from tulle.installing.installation import Request, objects
from tulle.installing.values import values_of

NAMESPACE_LABELS: list[dict[str, str]] = [
    {},
    {"istio-injection": "enabled"},
    {"istio-injection": "disabled"},
    {"istio.io/rev": "default"},
    {"istio.io/rev": "canary"},
    {"istio.io/rev": "prod"},
    {"istio-injection": "enabled", "istio.io/rev": "canary"},
]
POD_LABELS: list[dict[str, str]] = [
    {},
    {"sidecar.istio.io/inject": "true"},
    {"sidecar.istio.io/inject": "false"},
    {"istio.io/rev": "canary"},
    {"istio.io/rev": "canary", "sidecar.istio.io/inject": "true"},
    {"istio.io/rev": "default", "sidecar.istio.io/inject": "false"},
]
CASES = list(itertools.product(NAMESPACE_LABELS, POD_LABELS))


def holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Kubernetes' label selectors."""
    value = labels.get(expression["key"])
    match expression["operator"]:
        case "In":
            return value in expression["values"]
        case "NotIn":
            return value not in expression["values"]
        case "DoesNotExist":
            return value is None
    raise AssertionError(expression)


def asked(
    webhooks: list[dict[str, Any]], namespace: Mapping[str, str], pod: Mapping[str, str], *, is_annotated: bool = False
) -> list[str]:
    """Whose webhooks are asked about a pod, which may ask by its annotation."""
    return [
        hook["clientConfig"]["service"]["name"]
        for hook in webhooks
        if all(holds(one, namespace) for one in hook["namespaceSelector"]["matchExpressions"])
        and all(holds(one, pod) for one in hook["objectSelector"]["matchExpressions"])
        and (is_annotated or not any(one["name"] == "annotation" for one in hook["matchConditions"]))
    ]


def hooks_of(made: tuple[dict[str, Any], ...]) -> list[dict[str, Any]]:
    found = [one for one in made if one["kind"] == "MutatingWebhookConfiguration"]
    return [hook for one in found for hook in one["webhooks"]]


DEFAULT = Request(values_of("minimal"))
CANARY = Request(values_of("minimal", {"revision": "canary"}))
EVERYBODY = [*hooks_of(objects(DEFAULT)), *hooks_of(objects(CANARY)), *hooks_of(installation.tag("prod", CANARY))]


@pytest.mark.parametrize(("namespace", "pod"), CASES)
@pytest.mark.parametrize("annotations", [{}, {"sidecar.istio.io/inject": "true"}], ids=["", "annotated"])
def test_each_pod_is_asked_about_once_and_by_the_right_revision(
    namespace: dict[str, str], pod: dict[str, str], annotations: dict[str, str]
) -> None:
    place = {"kubernetes.io/metadata.name": "shop", **namespace}
    found = asked(EVERYBODY, place, pod, is_annotated=bool(annotations))
    wanted = injects(namespace, pod, annotations).role is not Role.NONE
    assert len(found) == (1 if wanted else 0)
    if wanted:
        named = namespace.get("istio.io/rev", "") if "istio-injection" not in namespace else ""
        if not namespace:
            named = pod.get("istio.io/rev", "")
        assert found == ["tulled" if named in ("", "default") else "tulled-canary"]


@pytest.mark.parametrize("name", ["kube-system", "kube-public", "kube-node-lease", "tulle-system"])
def test_the_system_and_we_are_never_asked_about(name: str) -> None:
    """Whatever their labels: the cluster, and we, start while nobody answers."""
    for namespace, pod in CASES:
        assert asked(EVERYBODY, {"kubernetes.io/metadata.name": name, **namespace}, pod) == []


def test_the_default_tag_takes_the_unnamed() -> None:
    hooks = [*hooks_of(objects(CANARY)), *hooks_of(installation.tag("default", CANARY))]
    for namespace in ({"istio-injection": "enabled"}, {"istio.io/rev": "default"}):
        assert asked(hooks, {"kubernetes.io/metadata.name": "shop", **namespace}, {}) == ["tulled-canary"]


def test_pods_of_the_hosts_network_are_not_asked_about() -> None:
    for hook in EVERYBODY:
        assert "hostNetwork" in hook["matchConditions"][0]["expression"]


def test_no_certificate_is_applied_so_none_is_taken_away() -> None:
    for made in (objects(DEFAULT), objects(CANARY)):
        for one in made:
            for hook in one.get("webhooks", ()):
                assert "caBundle" not in hook["clientConfig"]


def test_configuration_is_accepted_while_nobody_answers() -> None:
    [validator] = [one for one in objects(DEFAULT) if one["kind"] == "ValidatingWebhookConfiguration"]
    assert {hook["failurePolicy"] for hook in validator["webhooks"]} == {"Ignore"}
    selectors = [hook["objectSelector"]["matchExpressions"] for hook in validator["webhooks"]]
    for labels in ({}, {"istio.io/rev": "default"}):
        assert sum(all(holds(one, labels) for one in selector) for selector in selectors) == 1
    assert not any(all(holds(one, {"istio.io/rev": "canary"}) for one in selector) for selector in selectors)
