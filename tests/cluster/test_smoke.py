"""A real cluster does what the tests of tulle on Kubernetes build on: pods, names, Services, tokens, restarts."""

import json
import re
import subprocess
import time
from collections.abc import Iterator

import pytest
from kubelab import record
from kubelab.cluster import Cluster

pytestmark = pytest.mark.cluster

SPACE = "smoke"
TOOLS = "tulle/test:dev"
OBJECTS = """
apiVersion: v1
kind: Namespace
metadata: {name: smoke}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: smoke}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      initContainers:
      - name: beside
        image: tulle/test:dev
        restartPolicy: Always
        command: [httpd, -f, -p, "8081", -h, /var/www]
        startupProbe: {httpGet: {path: /index.html, port: 8081}, periodSeconds: 1}
      containers:
      - name: web
        image: tulle/test:dev
        command: [sh, -c, "wget -qO- http://127.0.0.1:8081/ && exec httpd -f -p 8080 -h /var/www"]
        readinessProbe: {httpGet: {path: /index.html, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: smoke}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: asks, namespace: smoke}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: asks
    image: tulle/test:dev
    command: [sleep, "100000"]
    volumeMounts: [{name: token, mountPath: /token}]
  volumes:
  - name: token
    projected: {sources: [{serviceAccountToken: {path: token, audience: tulle, expirationSeconds: 3600}}]}
"""


@pytest.fixture(scope="module")
def smoke(cluster: Cluster) -> Iterator[Cluster]:
    cluster.apply(OBJECTS)
    cluster.wait("-n", SPACE, "--for=condition=Ready", "pod/asks")
    cluster.kubectl("rollout", "status", "-n", SPACE, "deploy/web", "--timeout=60s", limit_s=65)
    yield cluster
    cluster.kubectl("delete", "namespace", SPACE, "--wait=true", limit_s=60)


def inside(cluster: Cluster, *line: str) -> str:
    return cluster.kubectl("exec", "-n", SPACE, "asks", "--", *line)


def asked(*line: str) -> str:
    done = subprocess.run(["curl", "-s", "-m", "3", *line], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_pods_reach_services_by_name(smoke: Cluster) -> None:
    for host in ("web.smoke", "web.smoke.svc.cluster.local"):
        # kube-proxy programs a new Service up to a second after its pods are ready
        assert inside(smoke, "curl", "-s", "--retry", "5", "--retry-connrefused", f"http://{host}/").strip() == "ok"


def test_the_host_reaches_pods_services_and_load_balancers(smoke: Cluster) -> None:
    service = smoke.get("-n", SPACE, "service", "web")
    pods = smoke.get("-n", SPACE, "pods", "-l", "app=web")["items"]
    (ingress,) = service["status"]["loadBalancer"]["ingress"]
    port = service["spec"]["ports"][0]["nodePort"]
    assert ingress["ip"].startswith("10.97.")
    places = [f"{ingress['ip']}:80", f"{service['spec']['clusterIP']}:80", f"{smoke.layout.nodes[0].address}:{port}"]
    places += [f"{pod['status']['podIP']}:8080" for pod in pods]
    assert [asked(f"http://{place}/") for place in places] == ["ok"] * 5


def test_a_review_names_the_pod_that_a_token_is_bound_to(smoke: Cluster) -> None:
    token = inside(smoke, "cat", "/token/token").strip()
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview"}
    review |= {"spec": {"token": token, "audiences": ["tulle"]}}
    status = json.loads(smoke.kubectl("create", "-f", "-", "-o", "json", text=json.dumps(review)))["status"]
    pod = smoke.get("-n", SPACE, "pod", "asks")
    extra = status["user"]["extra"]
    assert status["authenticated"]
    assert status["user"]["username"] == "system:serviceaccount:smoke:default"
    assert extra["authentication.kubernetes.io/pod-name"] == ["asks"]
    assert extra["authentication.kubernetes.io/pod-uid"] == [pod["metadata"]["uid"]]
    assert extra["authentication.kubernetes.io/node-name"] == ["node1"]


def test_pods_speak_to_the_api_with_their_token(smoke: Cluster) -> None:
    folder = "/var/run/secrets/kubernetes.io/serviceaccount"
    script = f'curl -s -m 5 --cacert {folder}/ca.crt -H "Authorization: Bearer $(cat {folder}/token)" '
    answer = json.loads(
        inside(smoke, "sh", "-c", f"{script} https://kubernetes.default.svc/api/v1/namespaces/smoke/pods")
    )
    # the default account may list nothing: it was known, and refused
    assert answer["code"] == 403
    assert "system:serviceaccount:smoke:default" in answer["message"]


def test_the_api_goes_away_and_comes_back(smoke: Cluster) -> None:
    before = smoke.pid("server")
    smoke.stop("server")
    try:
        with pytest.raises(subprocess.CalledProcessError):
            smoke.kubectl("get", "--raw", "/readyz", "--request-timeout=2s")
        assert inside_is_served(smoke)
    finally:
        smoke.start("server")
    end = time.monotonic() + 60
    while not is_ready(smoke):
        assert time.monotonic() < end
        time.sleep(0.2)
    assert smoke.pid("server") != before
    assert len(smoke.get("-n", SPACE, "pods", "-l", "app=web")["items"]) == 2


def inside_is_served(smoke: Cluster) -> bool:
    """Traffic does not need the API."""
    (address,) = re.findall(r"10\.97\.\d+\.\d+", asked_of_kernel(smoke))[:1]
    return asked(f"http://{address}/") == "ok"


def asked_of_kernel(smoke: Cluster) -> str:
    line = smoke.inside("node1", "nft", "list", "table", "ip", "kube-proxy")
    return subprocess.run(line, check=True, capture_output=True, text=True).stdout


def is_ready(smoke: Cluster) -> bool:
    try:
        return smoke.kubectl("get", "--raw", "/readyz", "--request-timeout=2s").strip() == "ok"
    except subprocess.CalledProcessError:
        return False


def test_the_run_file_names_every_process(smoke: Cluster) -> None:
    found = record.read(smoke.name)
    assert found is not None
    assert found.is_kept
    assert {"server", "controllers", "scheduler", "balancers", "switch", "node1", "node1-network"} == set(found.parts)
