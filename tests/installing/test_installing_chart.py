"""The chart renders to the objects of `tulle manifest generate`: by real Helm, for every profile and odd values."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tulle.installing import packaging
from tulle.installing.installation import Request, objects
from tulle.installing.values import PROFILES, plain, values_of

CHART = Path(packaging.__file__).parent / "chart"
GATEWAY_CLASS = "gateway.networking.k8s.io/v1/GatewayClass"
ODD = {
    "createNamespace": True,
    "image": {"hub": "registry.example:5000/mesh", "tag": "1.2.3", "pullSecrets": [{"name": "registry"}]},
    "mesh": {
        "trustDomain": "a.example",
        "leafTtlSeconds": 1000000.0,
        "registryOnly": True,
        "serviceCidrs": ["10.96.0.0/12"],
        "meshId": 'a <b> & "c" \\ \u00e9',
        "autoAllocateCidr": "240.240.0.0/16",
    },
    "injection": {"half": 0.5, "nested": {"list": [1, 2, {"z": None, "a": 1}]}},
    "controlPlane": {
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "a", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {"x": [1, 2]}},
        "podLabels": {"team": 'mesh: "quoted" {{ braces }}'},
        "podAnnotations": {"note": "two\nlines"},
        "arguments": ["--log=debug", "yes", "1"],
        "environment": [{"name": "A", "value": "on"}],
        "priorityClassName": "system-cluster-critical",
        "resources": {"limits": {"cpu": "1"}},
    },
    "injectionWebhook": {"neverNamespaces": []},
    "cni": {"enabled": True, "namespace": "node-agents", "networks": "/var/lib/cni/net.d", "tolerations": []},
    "secrets": {"namespaces": ["edge", "shop"], "followGateways": False},
    "ingress": {"enabled": True, "namespace": "edge-2", "serviceAnnotations": {"lb": "internal"}},
}
OFF = {
    "controlPlane": {"enabled": False},
    "ingress": {"enabled": True, "autoscaling": {"enabled": True, "maxReplicas": 9}},
}
LITTLE = {
    "injectionWebhook": {"enabled": False},
    "validationWebhook": {"enabled": False},
    "gatewayController": {"enabled": False},
    "controlPlane": {"disruptionBudget": False, "autoscaling": {"enabled": False}},
    "customResources": True,
}
CASES: list[tuple[str, str, dict[str, Any], frozenset[str]]] = [
    *((name, "", {}, frozenset()) for name in PROFILES),
    ("default", "canary-1", {}, frozenset()),
    ("default", "", {}, frozenset((GATEWAY_CLASS,))),
    ("minimal", "", ODD, frozenset((GATEWAY_CLASS,))),
    ("minimal", "r2", OFF, frozenset()),
    ("minimal", "r3", {"cni": {"enabled": True, "agent": False}}, frozenset()),
    ("demo", "", LITTLE, frozenset((GATEWAY_CLASS,))),
]


def key(one: dict[str, Any]) -> tuple[str, str, str]:
    return one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]


def rendered(helm: Path, folder: Path, values: dict[str, Any], *apis: str) -> list[dict[str, Any]]:
    written = folder / "values.yaml"
    written.write_text(yaml.safe_dump(values))
    line = [str(helm), "template", "tulle", str(CHART), "-n", "mesh-system", "-f", str(written)]
    line += ["--include-crds", "--kube-version", "1.36.0", *(f"--api-versions={api}" for api in apis)]
    done = subprocess.run(line, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


@pytest.mark.built
@pytest.mark.parametrize(("profile", "revision", "overlay", "apis"), CASES)
def test_helm_renders_the_objects_that_are_installed(
    helm: Path, tmp_path: Path, profile: str, revision: str, overlay: dict[str, Any], apis: frozenset[str]
) -> None:
    values = values_of(profile, overlay, {"revision": revision})
    expected = objects(Request(values, "mesh-system", apis))
    found = rendered(helm, tmp_path, plain(values), *apis)
    assert sorted(map(key, found)) == sorted(map(key, expected))
    by_key = {key(one): one for one in found}
    for one in expected:
        assert by_key[key(one)] == one


@pytest.mark.built
def test_helm_refuses_values_that_are_none(helm: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="contro1Plane"):
        rendered(helm, tmp_path, {"contro1Plane": {}})
    with pytest.raises(AssertionError, match="revision"):
        rendered(helm, tmp_path, {"revision": 'a"b'})


def test_the_chart_in_the_package_is_the_one_that_is_written() -> None:
    """`python tools/make_chart.py` was run after the last change."""
    held = {str(path.relative_to(CHART)): path.read_text() for path in CHART.rglob("*") if path.is_file()}
    assert held == packaging.files()


@pytest.mark.built
def test_helm_finds_nothing_to_say(helm: Path) -> None:
    done = subprocess.run(
        [str(helm), "lint", "--strict", str(CHART)], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout
