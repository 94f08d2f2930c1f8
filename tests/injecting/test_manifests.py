"""`tulle inject -f`: workloads of every kind, Lists, what is left as it was written, and YAML that says the same to Kubernetes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tulle.cli.inject import inject
from tulle.injecting.patching import patch

Json = dict[str, Any]
EXAMPLE = Path(__file__).resolve().parents[2] / "src/tulle/examples/bookinfo"
TEMPLATE = "{metadata: {labels: {app: a}}, spec: {containers: [{name: app, image: 'a:1'}]}}"


def run(text: str, *words: str) -> Result:
    return CliRunner().invoke(inject, ["-f", "-", *words], input=text, standalone_mode=False)


def documents(result: Result) -> list[Json]:
    assert result.exception is None, result.output
    return [one for one in yaml.safe_load_all(result.stdout) if one]


def workload_of(environment: list[Json]) -> str:
    told = next(one["value"] for one in environment if one["name"] == "TULLE_PEER")
    return str(told.split(";")[1])


def proxy_in(template: Json) -> Json:
    return next(one for one in template["spec"]["initContainers"] if one["name"] == "istio-proxy")


@pytest.mark.parametrize(
    ("version", "kind", "path"),
    [
        ("apps/v1", "Deployment", ["spec", "template"]),
        ("apps/v1", "StatefulSet", ["spec", "template"]),
        ("apps/v1", "DaemonSet", ["spec", "template"]),
        ("apps/v1", "ReplicaSet", ["spec", "template"]),
        ("v1", "ReplicationController", ["spec", "template"]),
        ("batch/v1", "Job", ["spec", "template"]),
        ("batch/v1", "CronJob", ["spec", "jobTemplate", "spec", "template"]),
        ("v1", "Pod", []),
    ],
)
def test_every_kind_of_workload(version: str, kind: str, path: list[str]) -> None:
    raw: Any = yaml.safe_load(TEMPLATE)
    for step in reversed(path):
        raw = {step: raw}
    raw = {"apiVersion": version, "kind": kind, **raw, "metadata": {**raw.get("metadata", {}), "name": "shop"}}
    [made] = documents(run(json.dumps(raw)))
    for step in path:
        made = made[step]
    assert workload_of(proxy_in(made)["env"]) == "shop"
    assert made["metadata"]["annotations"]["tulle.dev/sidecar"] == "true"


def test_lists_within_lists() -> None:
    deployment = f"{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: a}}, spec: {{template: {TEMPLATE}}}}}"
    service = "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: 80}]}}"
    inner = f"{{apiVersion: v1, kind: List, items: [{service}, {deployment}]}}"
    [made] = documents(run(f"{{apiVersion: v1, kind: List, items: [{inner}, {service}]}}"))
    assert made["items"][0]["items"][0] == made["items"][1] == yaml.safe_load(service)
    assert proxy_in(made["items"][0]["items"][1]["spec"]["template"])


def test_a_kind_of_another_group_is_not_ours() -> None:
    text = (
        f"{{apiVersion: other.example/v1, kind: Deployment, metadata: {{name: a}}, spec: {{template: {TEMPLATE}}}}}\n"
    )
    assert run(text).stdout == f"---\n{text}"


def test_what_gets_nothing_stays_as_it_was_written() -> None:
    text = "# a comment\napiVersion: v1\nkind: Service   # odd spacing\nmetadata: {name: a}\n---\nkind: ConfigMap\n"
    assert run(text).stdout == f"---\n{text}"


@pytest.mark.parametrize(
    ("labels", "is_injected"),
    [
        ("{}", True),
        ("{istio-injection: disabled}", False),
        ("{istio.io/rev: other}", False),
        ("{istio.io/rev: default}", True),
    ],
)
def test_the_namespaces_word_counts_where_it_is_written(labels: str, is_injected: bool) -> None:
    pod = "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: shop}, spec: {containers: [{name: a, image: a}]}}"
    text = f"{pod}\n---\n{{apiVersion: v1, kind: Namespace, metadata: {{name: shop, labels: {labels}}}}}\n"
    assert ("initContainers" in documents(run(text))[0]["spec"]) is is_injected


def test_problems_have_lines() -> None:
    text = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  annotations:\n    tulle.dev/drain-seconds: soon\nspec: {containers: []}\n"
    result = run(f"---\n{text}")
    assert "-:7: warning TUL1201" in result.stderr
    assert result.return_value == 0
    broken = run("apiVersion: v1\nkind: Pod\nmetadata: {labels: [a]}\nspec: {}\n")
    assert "TUL1205" in broken.stderr
    assert broken.return_value == 65


def test_settings_of_the_installation(tmp_path: Path) -> None:
    file = tmp_path / "mesh.json"
    file.write_text(
        json.dumps({"injection": {"proxyImage": "registry.example/envoy:1", "trustDomain": "mesh.example"}})
    )
    pod = "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: []}}"
    [made] = documents(run(pod, "--settings", str(file), "--revision", "1-2", "--capture", "cni"))
    proxy = proxy_in(made)
    assert proxy["image"] == "registry.example/envoy:1"
    assert "tulled-1-2.tulle-system.svc" in proxy["args"][1]
    assert "mesh.example" in next(one["value"] for one in proxy["env"] if one["name"] == "TULLE_PEER")
    file.write_text('{"injection": {"proxyImages": "x"}}')
    assert "proxyImages" in str(run(pod, "--settings", str(file)).exception)


ODD = [
    "1e3",
    "0o17",
    "0x1f",
    "017",
    "on",
    "No",
    "~",
    "null",
    "1_000",
    "08",
    "1.",
    ".5",
    "2026-01-01",
    "12:30:45",
    "- a",
    "",
    "é\n",
    "=",
    "<<",
]


def test_text_stays_text() -> None:
    """What YAML 1.1, YAML 1.2 or Kubernetes' reader would take for something else stands in quotes."""
    env = [{"name": f"v{number}", "value": value} for number, value in enumerate(ODD)]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a"},
        "spec": {"containers": [{"name": "a", "env": env}]},
    }
    result = run(json.dumps(pod))
    [made] = documents(result)
    assert [one["value"] for one in made["spec"]["containers"][0]["env"]] == ODD
    for value in ("1e3", "0o17", "1_000", "on"):
        assert f'value: "{value}"' in result.stdout
    assert "&id" not in result.stdout


def test_the_example_whole() -> None:
    result = CliRunner().invoke(inject, ["-f", str(EXAMPLE)], standalone_mode=False)
    made = documents(result)
    pods = [one["spec"]["template"]["spec"] for one in made if one["kind"] == "Deployment"]
    sidecars = [one for spec in pods for one in spec.get("initContainers", []) if one["name"] == "istio-proxy"]
    gateways = [one for spec in pods for one in spec["containers"] if one["name"] == "istio-proxy"]
    assert len(sidecars) + len(gateways) == len(pods)
    assert len(gateways) == 1
    again = run(result.stdout)
    assert again.stdout.replace("---\n", "") == result.stdout.replace("---\n", "")


scalars = st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(["", "a"])
keys = st.sampled_from(["", "a", "a/b", "~1", "~"])
inner = st.dictionaries(keys, scalars | st.lists(scalars, max_size=2), max_size=3)
maps = st.dictionaries(keys, scalars | inner | st.dictionaries(keys, inner, max_size=2), max_size=3)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(maps, maps)
def test_a_patch_makes_the_one_of_the_other(old: Json, new: Json) -> None:
    made: Json = json.loads(json.dumps(old))
    for operation in patch(old, new):
        *way, last = [step.replace("~1", "/").replace("~0", "~") for step in operation["path"].split("/")[1:]]
        place = made
        for step in way:
            place = place[step]
        assert (last in place) is (operation["op"] != "add")
        if operation["op"] == "remove":
            del place[last]
        else:
            place[last] = operation["value"]
    assert made == new
    assert not patch(new, new)
