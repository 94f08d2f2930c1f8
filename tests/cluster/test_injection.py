"""Injected pods in a real cluster: probes under STRICT, Jobs, init containers with the network, drain. Capture: an init container."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from kubelab.cluster import Cluster
from mesh_parts import LITTLE, caller, curl, mesh_in, pods_of, space, until

pytestmark = [pytest.mark.cluster, pytest.mark.long]

SPACES = ("injected", "plain")
PATIENCE_S = 180.0
WORKLOADS = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: NS}
spec: {mtls: {mode: STRICT}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: NS}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: NS}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web, version: v1}}
    spec:
      initContainers:
      - name: asks
        image: tulle/test:dev
        command: [curl, -sk, -m, "10", --retry, "3", -o, /dev/null, "https://kubernetes.default.svc/version"]
      containers:
      - name: web
        image: tulle/test:dev
        command: [sh, -c, "httpd -p 8080 -h /var/www; exec sleep 100000"]
        ports: [{name: http, containerPort: 8080}]
        startupProbe: {httpGet: {path: /index.html, port: http}, periodSeconds: 1, failureThreshold: 30}
        readinessProbe: {httpGet: {path: /index.html, port: 8080}, periodSeconds: 2}
        livenessProbe: {tcpSocket: {port: http}, periodSeconds: 2}
      - name: other
        image: tulle/test:dev
        command: [httpd, -f, -p, "5432", -h, /var/www]
        startupProbe: {tcpSocket: {port: 5432}, periodSeconds: 1, failureThreshold: 30}
        livenessProbe: {exec: {command: ["true"]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: ill, namespace: NS}
spec:
  selector: {matchLabels: {app: ill}}
  template:
    metadata: {labels: {app: ill}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: ill
        image: tulle/test:dev
        command: [sleep, "100000"]
        readinessProbe: {tcpSocket: {port: 5433}, periodSeconds: 1}
"""
JOB = """
apiVersion: batch/v1
kind: Job
metadata: {name: once, namespace: NS}
spec:
  backoffLimit: 0
  template:
    metadata: {labels: {app: once}}
    spec:
      restartPolicy: Never
      containers: [{name: once, image: tulle/test:dev, command: [curl, -sf, -m, "10", "http://web/index.html"]}]
"""


@pytest.fixture(scope="module")
def mesh(cluster: Cluster) -> Iterator[Cluster]:
    with mesh_in(cluster, *LITTLE, spaces=SPACES):
        space(cluster, "injected", {"istio-injection": "enabled"})
        space(cluster, "plain")
        cluster.apply(WORKLOADS.replace("NS", "injected"))
        caller(cluster, "plain")
        cluster.wait("--for=condition=Available", "deploy/web", "-n", "injected", limit_s=PATIENCE_S)
        yield cluster


def pod_of(cluster: Cluster, app: str, namespace: str = "injected") -> dict[str, Any]:
    return pods_of(cluster, namespace, f"app={app}")[0]


def state_of(pod: dict[str, Any], container: str) -> dict[str, Any]:
    return next(one for one in pod["status"]["containerStatuses"] if one["name"] == container)


def test_probes_answer_while_the_port_is_strict(mesh: Cluster) -> None:
    pod = pod_of(mesh, "web")
    address = pod["status"]["podIP"]
    code, said = curl(mesh, "plain", f"http://{address}:8080/")
    assert code in (52, 56), f"plaintext from outside of the mesh is reset: {said}"
    for container in ("web", "other"):
        assert state_of(pod, container)["ready"], container
    probes = {one["name"]: one for one in pod["spec"]["containers"]}
    assert probes["web"]["readinessProbe"]["httpGet"]["port"] == 15020
    assert "exec" in probes["other"]["livenessProbe"]


def test_a_port_where_nobody_listens_is_not_ready(mesh: Cluster) -> None:
    def refused() -> bool:
        events = mesh.get("events", "-n", "injected", "--field-selector=reason=Unhealthy")["items"]
        return any(
            one["involvedObject"]["name"].startswith("ill-")
            and "Readiness" in one["message"]
            and "503" in one["message"]
            for one in events
        )

    until("the kubelet is told", refused)
    assert not state_of(pod_of(mesh, "ill"), "ill")["ready"]


def test_a_workload_that_serves_no_more_is_restarted(mesh: Cluster) -> None:
    """The liveness probe is TCP: the proxy's answer fails when the workload's port does."""
    name = pod_of(mesh, "web")["metadata"]["name"]
    mesh.kubectl("exec", "-n", "injected", name, "-c", "web", "--", "killall", "httpd")
    until("restarted", lambda: state_of(pod_of(mesh, "web"), "web")["restartCount"] >= 1)
    until("ready again", lambda: state_of(pod_of(mesh, "web"), "web")["ready"])


def test_a_job_ends_with_its_sidecar(mesh: Cluster) -> None:
    mesh.apply(JOB.replace("NS", "injected"))
    mesh.wait("--for=condition=Complete", "job/once", "-n", "injected", limit_s=PATIENCE_S)
    [pod] = mesh.get("pods", "-n", "injected", "-l", "app=once")["items"]
    assert pod["status"]["phase"] == "Succeeded"
    beside = {one["name"]: one for one in pod["status"]["initContainerStatuses"]}
    assert "terminated" in beside["istio-proxy"]["state"]
    assert mesh.kubectl("logs", "-n", "injected", pod["metadata"]["name"], "-c", "once").strip() == "ok"


def test_one_that_was_told_to_end_still_answers(mesh: Cluster) -> None:
    """Peers that have not heard yet are served while the workload sleeps before its end."""
    pod = pod_of(mesh, "web")
    mesh.kubectl("delete", "pod", "-n", "injected", pod["metadata"]["name"], "--wait=false")
    time.sleep(2)
    probe = ["curl", "-s", "-m", "5", f"http://{pod['status']['podIP']}:15020/app-health/web/readyz"]
    assert mesh.kubectl("exec", "-n", "plain", "caller", "--", *probe).strip() == "ok"
    mesh.wait("--for=condition=Available", "deploy/web", "-n", "injected", limit_s=PATIENCE_S)


def test_the_token_is_the_proxys_alone(mesh: Cluster) -> None:
    pod = pod_of(mesh, "web")["metadata"]["name"]
    seen = mesh.kubectl(
        "exec", "-n", "injected", pod, "-c", "web", "--", "sh", "-c", "ls /var/run/secrets /run/tulle 2>&1; true"
    )
    assert "tulle.dev" not in seen
    assert "envoy" not in seen
