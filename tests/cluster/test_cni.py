"""Capture by the node agent's CNI plugin: pods without NET_ADMIN in a namespace that forbids it, and the agent's own life."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from kubelab.cluster import Cluster
from mesh_parts import LITTLE, PATIENCE_S, caller, curl, listing, mesh_in, pods_of, space, tulle, until

pytestmark = [pytest.mark.cluster, pytest.mark.long]

SPACES = ("quiet", "plain")
PLUGIN = "tulle-capture"
AGENT = ("-n", "kube-system", "ds/tulle-cni")
WORKLOADS = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: quiet}
spec: {mtls: {mode: STRICT}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: quiet}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: quiet}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 2
      initContainers:
      - name: asks
        image: tulle/test:dev
        command: [curl, -sk, -m, "10", --retry, "3", -o, /dev/null, -w, "%{http_code}", "https://kubernetes.default.svc/version"]
      containers:
      - name: web
        image: tulle/test:dev
        command: [httpd, -f, -p, "8080", -h, /var/www]
        readinessProbe: {httpGet: {path: /index.html, port: 8080}, periodSeconds: 1}
"""


@pytest.fixture(scope="module")
def before(cluster: Cluster) -> set[str]:
    return listing(cluster)


@pytest.fixture(scope="module")
def mesh(cluster: Cluster, before: set[str]) -> Iterator[Cluster]:
    assert not is_chained(cluster)
    with mesh_in(cluster, *LITTLE, "--set=cni.enabled=true", spaces=SPACES) as said:
        assert "node agent: ready" in said
        assert is_chained(cluster), "the command waits for the plugin"
        space(cluster, "plain")
        space(cluster, "quiet", {"istio-injection": "enabled", "pod-security.kubernetes.io/enforce": "baseline"})
        cluster.apply(WORKLOADS)
        caller(cluster, "plain")
        caller(cluster, "quiet")
        cluster.wait("--for=condition=Available", "deploy/web", "-n", "quiet", limit_s=PATIENCE_S)
        yield cluster


def is_chained(cluster: Cluster) -> bool:
    """Whether the node's network calls the plugin, as its container runtime reads it."""
    [path] = (cluster.kubeconfig.parent / "node1" / "cni").glob("*.conflist")
    plugins = [one["type"] for one in json.loads(path.read_text())["plugins"]]
    assert plugins[0] == "bridge"
    return PLUGIN in plugins


def test_pods_have_no_right_and_are_captured(mesh: Cluster) -> None:
    [web] = pods_of(mesh, "quiet", "app=web")
    containers = [*web["spec"]["initContainers"], *web["spec"]["containers"]]
    assert [one["name"] for one in containers] == ["tulle-capture", "istio-proxy", "asks", "web"]
    assert "NET_ADMIN" not in json.dumps(web)
    code, said = curl(mesh, "plain", f"http://{web['status']['podIP']}:8080/")
    assert code in (52, 56), f"plaintext is refused: {said}"
    assert curl(mesh, "quiet", "http://web/index.html") == (0, "ok")


def test_an_init_container_has_the_network(mesh: Cluster) -> None:
    [web] = pods_of(mesh, "quiet", "app=web")
    said = mesh.kubectl("logs", "-n", "quiet", web["metadata"]["name"], "-c", "asks")
    assert said in ("200", "401", "403"), "the API answered"


def test_the_namespace_forbids_the_other_way(mesh: Cluster) -> None:
    """Without the plugin the same pod would not be admitted: the test above shows something."""
    pod = (
        "{apiVersion: v1, kind: Pod, metadata: {name: strong, namespace: quiet, labels: {sidecar.istio.io/inject: 'false'}}, spec:"
        " {containers: [{name: a, image: 'tulle/test:dev', securityContext: {capabilities: {add: [NET_ADMIN]}}}]}}"
    )
    with pytest.raises(subprocess.CalledProcessError, match="NET_ADMIN"):
        mesh.apply(pod)


def test_a_new_agent_finds_the_plugin_at_work(mesh: Cluster) -> None:
    [old] = agents(mesh)
    mesh.kubectl("delete", "pod", "-n", "kube-system", old["metadata"]["name"], "--wait=true", limit_s=60)
    assert is_chained(mesh), "between two agents pods are captured"
    until("another agent", lambda: [one for one in agents(mesh) if is_ready(one)])
    mesh.kubectl("rollout", "restart", "-n", "quiet", "deploy/web")
    mesh.kubectl("rollout", "status", "-n", "quiet", "deploy/web", "--timeout=120s", limit_s=130)


def agents(mesh: Cluster) -> list[dict[str, Any]]:
    """On the node whose configuration `is_chained` reads."""
    return [one for one in pods_of(mesh, "kube-system", "app=tulle-cni") if one["spec"].get("nodeName") == "node1"]


def is_ready(pod: dict[str, Any]) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", ()))


def test_without_the_plugin_no_pod_runs_uncaptured(mesh: Cluster) -> None:
    mesh.kubectl("delete", *AGENT, "--wait=true", limit_s=90)
    until("the plugin has left", lambda: not is_chained(mesh), 60)
    try:
        mesh.kubectl("delete", "pod", "-n", "quiet", "-l", "app=web", "--wait=true", limit_s=60)
        until("the pod is held back", lambda: "not captured" in json.dumps(ended(mesh)))
        assert not any(is_ready(one) for one in pods_of(mesh, "quiet", "app=web"))
    finally:
        tulle(mesh, "install", *LITTLE, "--set=cni.enabled=true", "--wait=240s", "--yes")
    mesh.kubectl("delete", "pod", "-n", "quiet", "-l", "app=web", "--wait=false")
    mesh.wait("--for=condition=Available", "deploy/web", "-n", "quiet", limit_s=PATIENCE_S)


def ended(mesh: Cluster) -> list[Any]:
    statuses = [one["status"].get("initContainerStatuses", []) for one in pods_of(mesh, "quiet", "app=web")]
    return [(one.get("state"), one.get("lastState")) for status in statuses for one in status]


def test_nothing_stays(mesh: Cluster, before: set[str]) -> None:
    """The last one of the module."""
    mesh.kubectl("delete", "ns", *SPACES, limit_s=180)
    tulle(mesh, "uninstall", "--purge", "--yes", "--wait=180s")
    assert listing(mesh) == before
    assert not is_chained(mesh)
    tulle(mesh, "install", *LITTLE, "--wait=0s", "--yes")  # what the fixture takes away
