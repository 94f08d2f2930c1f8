"""How pods are addressed beside plain Services: headless, StatefulSets, ExternalName, own EndpointSlices; Jobs; and neighbours without
injection beside a STRICT namespace, as Istio documents.
"""

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from kubelab.cluster import Cluster
from mesh_parts import LITTLE, PATIENCE_S, caller, curl, mesh_in, pods_of, space, until

pytestmark = [pytest.mark.cluster, pytest.mark.long]

SPACES = ("homes", "plain")
SERVES = 'sh, -c, "hostname >/tmp/index.html; exec httpd -f -p 8080 -h /tmp"'
POLICY = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: homes}
spec: {mtls: {mode: MODE}}
"""
WORKLOADS = f"""
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: homes}}
spec: {{selector: {{app: web}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: bare, namespace: homes}}
spec: {{clusterIP: None, selector: {{app: web}}, ports: [{{name: http, port: 8080}}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, namespace: homes}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 2
      containers: [{{name: web, image: "tulle/test:dev", command: [{SERVES}], readinessProbe: {{tcpSocket: {{port: 8080}}}}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: db, namespace: homes}}
spec: {{clusterIP: None, selector: {{app: db}}, ports: [{{name: http, port: 8080}}, {{name: tcp-raw, port: 9000}}]}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: db, namespace: homes}}
spec:
  serviceName: db
  replicas: 2
  podManagementPolicy: Parallel
  selector: {{matchLabels: {{app: db}}}}
  template:
    metadata: {{labels: {{app: db}}}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: db
        image: tulle/test:dev
        command: [sh, -c, "hostname >/tmp/index.html; (while true; do nc -l -p 9000 -e hostname; done) & exec httpd -f -p 8080 -h /tmp"]
        readinessProbe: {{tcpSocket: {{port: 8080}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: alias, namespace: homes}}
spec: {{type: ExternalName, externalName: web.homes.svc.cluster.local}}
---
apiVersion: v1
kind: Pod
metadata: {{name: outsider, namespace: plain, labels: {{app: outsider}}}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{{name: web, image: "tulle/test:dev", command: [{SERVES}], readinessProbe: {{tcpSocket: {{port: 8080}}}}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: outsider, namespace: plain}}
spec: {{selector: {{app: outsider}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}
"""
OWN_SLICES = """
apiVersion: v1
kind: Service
metadata: {name: manual, namespace: homes}
spec: {ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: manual-1, namespace: homes, labels: {kubernetes.io/service-name: manual, endpointslice.kubernetes.io/managed-by: tests}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints: [{addresses: [ADDRESS], conditions: {ready: true}}]
"""
JOB = """
apiVersion: batch/v1
kind: Job
metadata: {name: once, namespace: homes}
spec:
  backoffLimit: 0
  template:
    metadata: {labels: {app: once}}
    spec:
      restartPolicy: Never
      containers: [{name: once, image: "tulle/test:dev", command: [curl, -sf, -m, "10", "http://web/index.html"]}]
"""


@pytest.fixture(scope="module")
def mesh(cluster: Cluster) -> Iterator[Cluster]:
    with mesh_in(cluster, *LITTLE, spaces=SPACES):
        space(cluster, "homes", {"istio-injection": "enabled"})
        space(cluster, "plain")
        cluster.apply(POLICY.replace("MODE", "STRICT"))
        cluster.apply(WORKLOADS)
        caller(cluster, "homes")
        caller(cluster, "plain")
        cluster.kubectl("rollout", "status", "-n", "homes", "deploy/web", "--timeout=200s", limit_s=210)
        cluster.kubectl("rollout", "status", "-n", "homes", "sts/db", "--timeout=200s", limit_s=210)
        cluster.wait("--for=condition=Ready", "pod/outsider", "-n", "plain", limit_s=PATIENCE_S)
        yield cluster


def names(mesh: Cluster, app: str) -> set[str]:
    return {one["metadata"]["name"] for one in pods_of(mesh, "homes", f"app={app}")}


def who(mesh: Cluster, *words: str, calls: int = 1) -> set[str]:
    """Who answers the mesh's caller: names of pods."""
    found = [curl(mesh, "homes", *words) for _ in range(calls)]
    assert all(code == 0 for code, _ in found), found
    return {said for _, said in found}


def test_a_service_shares_among_its_pods(mesh: Cluster) -> None:
    assert who(mesh, "http://web/", calls=20) == names(mesh, "web")


def test_a_headless_service_is_its_pods(mesh: Cluster) -> None:
    """DNS gives their addresses, and the one that the client dials answers, by mTLS: the namespace is STRICT."""
    pods = pods_of(mesh, "homes", "app=web")
    for pod in pods:
        words = ("--resolve", f"bare:8080:{pod['status']['podIP']}", "http://bare:8080/")
        assert who(mesh, *words, calls=3) == {pod["metadata"]["name"]}
    addresses = {one["status"]["podIP"] for one in pods}
    said = mesh.kubectl(
        "exec", "-n", "homes", "caller", "-c", "caller", "--", "nslookup", "bare.homes.svc.cluster.local"
    )
    assert addresses <= set(re.findall(r"\d+\.\d+\.\d+\.\d+", said))


@pytest.mark.parametrize("number", [0, 1])
def test_a_stateful_pod_has_a_name_of_its_own(mesh: Cluster, number: int) -> None:
    for host in (f"db-{number}.db", f"db-{number}.db.homes.svc.cluster.local"):
        assert who(mesh, f"http://{host}:8080/", calls=5) == {f"db-{number}"}


def test_a_stateful_pod_is_found_by_tcp(mesh: Cluster) -> None:
    for number in (0, 1):
        script = f"nc -w 5 db-{number}.db 9000 </dev/null"
        said = mesh.kubectl("exec", "-n", "homes", "caller", "-c", "caller", "--", "sh", "-c", script)
        assert said.strip() == f"db-{number}"


def test_a_pod_is_called_by_its_address(mesh: Cluster) -> None:
    """TCP: its sidecar is known by the address. HTTP whose Host is no service's is passed through as it is, and STRICT refuses it (Istio)."""
    for pod in pods_of(mesh, "homes", "app=db"):
        address = pod["status"]["podIP"]
        said = mesh.kubectl("exec", "-n", "homes", "caller", "-c", "caller", "--", "nc", "-w", "5", address, "9000")
        assert said.strip() == pod["metadata"]["name"]
        code, said = curl(mesh, "homes", "-o", "/dev/null", "-w", "%{http_code}", f"http://{address}:8080/")
        assert (code, said) == (0, "503")


def test_an_external_name_leads_on(mesh: Cluster) -> None:
    assert who(mesh, "http://alias/", calls=10) <= names(mesh, "web")


def test_a_service_without_selector_has_the_slices_it_is_given(mesh: Cluster) -> None:
    first, second = pods_of(mesh, "homes", "app=web")
    mesh.apply(OWN_SLICES.replace("ADDRESS", first["status"]["podIP"]))

    def answers(pod: dict[str, Any]) -> bool:
        return curl(mesh, "homes", "http://manual/") == (0, pod["metadata"]["name"])

    until("the first", lambda: answers(first), 30)
    assert who(mesh, "http://manual/", calls=10) == {first["metadata"]["name"]}
    mesh.apply(OWN_SLICES.replace("ADDRESS", second["status"]["podIP"]))
    until("the second", lambda: answers(second), 30)
    assert who(mesh, "http://manual/", calls=10) == {second["metadata"]["name"]}


def test_a_job_ends_with_its_sidecar(mesh: Cluster) -> None:
    began = time.monotonic()
    mesh.apply(JOB)
    mesh.wait("--for=condition=Complete", "job/once", "-n", "homes", limit_s=PATIENCE_S)
    print(f"\na Job with a sidecar is complete after {time.monotonic() - began:.1f} s")
    [pod] = mesh.get("pods", "-n", "homes", "-l", "app=once")["items"]
    assert pod["status"]["phase"] == "Succeeded"
    proxy = next(one for one in pod["status"]["initContainerStatuses"] if one["name"] == "istio-proxy")
    assert "terminated" in proxy["state"]


def plain_call(mesh: Cluster, address: str) -> tuple[int, str]:
    return curl(mesh, "plain", f"http://{address}/")


def test_strict_refuses_those_outside(mesh: Cluster) -> None:
    """By the Service, by the headless Service, by the pod: connections without a certificate of the mesh are reset."""
    for address in ("web.homes", "bare.homes:8080", "db-0.db.homes:8080"):
        code, said = plain_call(mesh, address)
        assert code in (52, 56), f"{address}: {said}"


def test_those_inside_reach_those_outside(mesh: Cluster) -> None:
    """Automatic mTLS: a server without a sidecar is called in plain text, though the caller's namespace is STRICT."""
    assert who(mesh, "http://outsider.plain/", calls=5) == {"outsider"}
    [outsider] = pods_of(mesh, "plain", "app=outsider")
    assert len(outsider["spec"]["containers"]) == 1
    assert "initContainers" not in outsider["spec"]


def test_permissive_takes_both(mesh: Cluster) -> None:
    """And STRICT again refuses: the two above are not a matter of reachability."""
    mesh.apply(POLICY.replace("MODE", "PERMISSIVE"))
    try:
        until("plain text is taken", lambda: plain_call(mesh, "web.homes")[0] == 0, 30)
        assert who(mesh, "http://web/", calls=5) <= names(mesh, "web")
    finally:
        mesh.apply(POLICY.replace("MODE", "STRICT"))
    until("plain text is refused", lambda: plain_call(mesh, "web.homes")[0] in (52, 56), 30)


def test_a_port_may_be_left_open(mesh: Cluster) -> None:
    """portLevelMtls: one port of a STRICT workload takes plain text, the other does not (Istio, PeerAuthentication)."""
    spec = {
        "selector": {"matchLabels": {"app": "db"}},
        "mtls": {"mode": "STRICT"},
        "portLevelMtls": {"8080": {"mode": "PERMISSIVE"}},
    }
    one = {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "spec": spec}
    mesh.apply(json.dumps({**one, "metadata": {"name": "open", "namespace": "homes"}}))
    try:
        until("the port is open", lambda: plain_call(mesh, "db-0.db.homes:8080") == (0, "db-0"), 30)
        script = "nc -w 5 db-0.db.homes 9000 </dev/null; true"
        said = mesh.kubectl("exec", "-n", "plain", "caller", "--", "sh", "-c", script)
        assert "db-0" not in said
    finally:
        mesh.kubectl("delete", "peerauthentication", "open", "-n", "homes")
