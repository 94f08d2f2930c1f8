"""From manifests to pods: what containers execute, and what keeps them from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tulle.dialects.kubernetes.injection import Role
from tulle.dialects.kubernetes.secret import SecretMaterial, secret_material
from tulle.local import manifests
from tulle.local.containers import Launch, Subject, World, launch
from tulle.local.desired import capture_of, workloads
from tulle.local.fabric.wire import NO_CAPTURE
from tulle.local.manifests import Container
from tulle.local.published import Seen, by_urgency
from tulle.model.keys import ObjectKey
from tulle.model.origin import Origin
from tulle.model.problems import Problem
from tulle.sources.files import FileSource

TEMPLATE = """
apiVersion: v1
kind: Namespace
metadata: {{name: shop, labels: {{istio-injection: enabled}}}}
---
apiVersion: apps/v1
kind: {kind}
metadata: {{name: web, namespace: shop}}
spec:
  replicas: 2
  template:
    metadata:
      labels: {{app: web}}
      annotations: {annotations}
    spec:
      containers:
      - {container}
"""


def read(folder: Path, container: str = "{name: web, image: 'x:1'}", kind: str = "Deployment", annotations: str = "{}"):
    (folder / "m.yaml").write_text(TEMPLATE.format(kind=kind, container=container, annotations=annotations))
    source = FileSource([folder], reader=manifests.read)
    source.reload()
    assert not source.problems, [str(one) for one in source.problems]
    found, problems = workloads(source.objects)
    assert not problems
    return found[0]


def world(**fields: Any) -> World:
    given: dict[str, Any] = {
        "config_map": lambda namespace, name: {"COLOR": "red", "not a name!": "x"} if name == "cm" else None,
        "secret": _secret,
        "find_program": lambda word, directory: f"/usr/bin/{word}" if word in ("python", "sleep") else None,
        "images": {},
        "directory": "/manifests",
        "base_env": {"PATH": "/usr/bin"},
    }
    return World(**given | fields)


def _secret(namespace: str, name: str) -> SecretMaterial | None:
    return secret_material({"stringData": {"token": "s3cret"}}) if name == "s" else None


SUBJECT = Subject(
    name="web-1",
    namespace="shop",
    uid="abc",
    ip="10.0.0.9",
    host_ip="10.0.0.1",
    service_account="acc",
    labels={"app": "web"},
    annotations={},
    hostname="web-1",
    volumes=(),
    origin=Origin(ObjectKey("c", "apps", "Deployment", "shop", "web")),
)


def launched(fields: dict[str, Any], annotations: dict[str, str] | None = None, **of_world: Any) -> Launch | Problem:
    import msgspec

    container = msgspec.convert({"name": "web", "image": "docker.io/x/web:1", **fields}, Container)
    subject = SUBJECT.__class__(**{**SUBJECT.__dict__, "annotations": annotations or {}})
    return launch(container, subject, world(**of_world))


def env_of(fields: dict[str, Any]) -> dict[str, str]:
    found = launched({"command": ["sleep"], **fields})
    assert isinstance(found, Launch), found.text
    return dict(found.env)


def test_a_workload(tmp_path: Path) -> None:
    found = read(tmp_path)
    assert (found.replicas, found.role, found.owner) == (2, Role.SIDECAR, ("ReplicaSet", f"web-{found.template_hash}"))
    assert found.pod_name(0) == read(tmp_path).pod_name(0) != found.pod_name(1)
    assert found.labels_of("p", 0)["pod-template-hash"] == found.template_hash


def test_replicas_do_not_change_the_template(tmp_path: Path) -> None:
    before = read(tmp_path)
    (tmp_path / "m.yaml").write_text((tmp_path / "m.yaml").read_text().replace("replicas: 2", "replicas: 5"))
    source = FileSource([tmp_path], reader=manifests.read)
    source.reload()
    after = workloads(source.objects)[0][0]
    assert (after.replicas, after.template_hash) == (5, before.template_hash)


def test_a_changed_template_has_another_hash(tmp_path: Path) -> None:
    assert read(tmp_path).template_hash != read(tmp_path, "{name: web, image: 'x:2'}").template_hash


def test_stateful_pods_have_stable_names(tmp_path: Path) -> None:
    found = read(tmp_path, kind="StatefulSet")
    assert [found.pod_name(0), found.pod_name(1)] == ["web-0", "web-1"]


def test_capture_annotations(tmp_path: Path) -> None:
    said = "{traffic.sidecar.istio.io/excludeOutboundPorts: '5432, 6379', traffic.sidecar.istio.io/includeInboundPorts: ''}"
    found = capture_of(read(tmp_path, annotations=said))
    assert (found.exclude_outbound_ports, found.include_inbound_ports) == ((5432, 6379), ())
    assert capture_of(read(tmp_path, annotations="{sidecar.istio.io/inject: 'false'}")) == NO_CAPTURE


def test_the_command_of_the_container_if_it_is_here() -> None:
    found = launched({"command": ["python", "-m", "x"], "args": ["$(HOSTNAME)", "$$(HOSTNAME)", "$(NOT)"]})
    assert isinstance(found, Launch)
    assert found.argv == ("/usr/bin/python", "-m", "x", "web-1", "$(HOSTNAME)", "$(NOT)")
    assert (found.directory, found.uid) == ("/manifests", 1000)


@pytest.mark.parametrize("image", ["docker.io/x/web:1", "docker.io/x/web", "web"])
def test_an_image_is_mapped_by_tulle_yaml(image: str) -> None:
    found = launched({"args": ["-v"]}, images={image: ("sleep", "3")})
    assert isinstance(found, Launch)
    assert found.argv == ("/usr/bin/sleep", "3", "-v")


def test_an_image_is_mapped_by_annotation_first() -> None:
    found = launched({}, {"tulle.dev/command": "sleep '1 2'"}, images={"web": ("python",)})
    assert isinstance(found, Launch)
    assert found.argv == ("/usr/bin/sleep", "1 2")


def test_an_unknown_command_is_a_problem_that_says_how_to_map_it() -> None:
    found = launched({"command": ["/app/server"]})
    assert isinstance(found, Problem)
    assert found.code == "TUL0901"
    assert "docker.io/x/web:1" in found.advice


def test_environment() -> None:
    env = env_of(
        {
            "envFrom": [{"prefix": "C_", "configMapRef": {"name": "cm"}}, {"secretRef": {"name": "s"}}],
            "env": [
                {"name": "A", "value": "1"},
                {"name": "B", "value": "$(A)$(C_COLOR)"},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                {"name": "K", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "COLOR"}}},
                {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "token"}}},
                {"name": "O", "valueFrom": {"secretKeyRef": {"name": "none", "key": "x", "optional": True}}},
            ],
        }
    )
    assert env == {
        "PATH": "/usr/bin",
        "HOSTNAME": "web-1",
        "C_COLOR": "red",
        "token": "s3cret",
        "A": "1",
        "B": "1red",
        "IP": "10.0.0.9",
        "APP": "web",
        "K": "red",
        "S": "s3cret",
    }


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"envFrom": [{"configMapRef": {"name": "none"}}]}, "ConfigMap none"),
        ({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "b"}}}]}, "entry b of Secret s"),
        ({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]}, "the field spec.x"),
    ],
)
def test_what_is_missing_is_named(fields: dict[str, Any], what: str) -> None:
    found = launched({"command": ["sleep"], **fields})
    assert isinstance(found, Problem)
    assert (found.code, dict(found.arguments)["what"]) == ("TUL0902", what)


URGENCY = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80}]}
"""


def test_who_can_be_called_starts_before_who_cannot(tmp_path: Path) -> None:
    """Gateways, then one pod of every Service, then further ones, then those that nobody calls."""
    (tmp_path / "s.yaml").write_text(URGENCY)
    web = read(tmp_path)
    source = FileSource([tmp_path], reader=manifests.read)
    source.reload()
    services = [found for key, found in source.objects.items() if key.kind == "Service"]
    gateway = replace(web, role=Role.GATEWAY)

    def seen(uid: str, workload: Any, app: str) -> Seen:
        return Seen(uid, uid, "10.0.0.1", workload, {"app": app}, "Pending", is_ready=False, created="")

    pods = [
        seen("bot", web, "bot"),
        seen("web-1", web, "web"),
        seen("web-2", web, "web"),
        seen("edge", gateway, "edge"),
    ]
    assert by_urgency(services, pods) == ["edge", "web-1", "web-2", "bot"]
    assert by_urgency([], pods) == ["edge", "bot", "web-1", "web-2"]
