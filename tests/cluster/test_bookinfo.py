"""Bookinfo in a real cluster, its manifests unchanged: sidecars by the webhook, mTLS, denials, a gateway, edits that are answered."""

import json
import re
import subprocess
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from kubelab.cluster import Cluster
from mesh_parts import PATIENCE_S, mesh_in, tulle, until

pytestmark = [pytest.mark.cluster, pytest.mark.long]

EXAMPLE = Path(str(files("tulle.examples.bookinfo")))
MANIFESTS = ("bookinfo.yaml", "clients.yaml", "gateway.yaml", "routing.yaml", "security.yaml")
SPACES = ("bookinfo", "istio-system", "outside")
INSTALL = (
    "--profile=minimal",
    "--set=image.tag=dev",
    "--set=controlPlane.autoscaling.enabled=false",
)
OUTSIDE = """
apiVersion: v1
kind: Namespace
metadata: {name: outside}
---
apiVersion: v1
kind: Pod
metadata: {name: caller, namespace: outside}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: caller, image: tulle/test:dev, command: [sleep, "100000"]}]
"""
JOB = """
apiVersion: batch/v1
kind: Job
metadata: {name: once, namespace: bookinfo}
spec:
  backoffLimit: 0
  template:
    metadata: {labels: {app: once}}
    spec:
      restartPolicy: Never
      containers:
      - name: once
        image: docker.io/tulle/bookinfo:0.1
        command: [python, -c, "import urllib.request as r\\ntry: r.urlopen('http://details:9080/details/0', timeout=10)\\nexcept r.HTTPError as e: assert e.code == 403, e"]
"""


@pytest.fixture(scope="module")
def mesh(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with tulle, and Bookinfo running in it."""
    with mesh_in(cluster, *INSTALL, images=("bookinfo", "test"), spaces=SPACES):
        for name in MANIFESTS:
            cluster.apply((EXAMPLE / name).read_text())
        cluster.apply(OUTSIDE)
        cluster.wait("--for=condition=Available", "deploy", "--all", "-n", "bookinfo", limit_s=PATIENCE_S)
        cluster.wait("--for=condition=Available", "deploy", "--all", "-n", "istio-system", limit_s=PATIENCE_S)
        cluster.wait("--for=condition=Ready", "pod/caller", "-n", "outside", limit_s=PATIENCE_S)
        yield cluster


def pods(mesh: Cluster, namespace: str = "bookinfo") -> list[dict[str, Any]]:
    return list(mesh.get("pods", "-n", namespace, "--field-selector=status.phase=Running")["items"])


def proxies(mesh: Cluster) -> dict[str, Any]:
    found = json.loads(tulle(mesh, "get", "proxies", "--mesh", "kube", "-o", "json").stdout)
    return {one["id"]: one for one in found}


def logs(mesh: Cluster, app: str, container: str | None = None, since: str = "20s") -> str:
    return mesh.kubectl("logs", "-n", "bookinfo", f"deploy/{app}-v1", "-c", container or app, f"--since={since}")


def test_every_pod_has_one_more_container_and_no_agent(mesh: Cluster) -> None:
    for pod in pods(mesh):
        beside = pod["spec"].get("initContainers") or []
        assert [one["name"] for one in beside] == ["tulle-capture", "istio-proxy"], pod["metadata"]["name"]
        assert len(pod["spec"]["containers"]) == 1
        proxy = beside[1]
        assert proxy["restartPolicy"] == "Always"
        assert proxy["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_readers_are_served_by_all_versions_and_the_stranger_is_denied(mesh: Cluster) -> None:
    def served() -> str | None:
        said = logs(mesh, "bot")
        good = [line for line in said.splitlines() if " 0 failed" in line and " ok" in line and "[bot" in line]
        return good[-1] if good else None

    line = until("the bot is served", served)
    assert re.search(r"[1-9]\d* ok", line)
    versions = until("all versions", lambda: _versions(mesh))
    assert versions == {"v1", "v2", "v3"}
    until("the stranger is denied", lambda: "DENIED 403" in logs(mesh, "stranger"))


def _versions(mesh: Cluster) -> set[str] | None:
    found = set()
    for line in logs(mesh, "bot", since="60s").splitlines():
        if match := re.search(r"reviews ([^;]+);", line):
            found |= set(re.findall(r"v[123]", match.group(1)))
    return found if found == {"v1", "v2", "v3"} else None


def test_plain_text_from_outside_the_mesh_is_refused(mesh: Cluster) -> None:
    """STRICT: what has no certificate of the mesh does not even get an answer of HTTP."""
    address = next(pod["status"]["podIP"] for pod in pods(mesh) if pod["metadata"]["labels"]["app"] == "details")
    call = ["exec", "-n", "outside", "caller", "--", "curl", "-sS", "-m", "5", f"http://{address}:9080/details/0"]
    with pytest.raises(subprocess.CalledProcessError) as refused:
        mesh.kubectl(*call)
    assert refused.value.returncode in (52, 56), refused.value.stderr  # empty reply, reset


def test_the_gateway_answers_at_its_address(mesh: Cluster) -> None:
    def address() -> str | None:
        service = mesh.get("svc", "istio-ingressgateway", "-n", "istio-system")
        ingress = service["status"].get("loadBalancer", {}).get("ingress") or [{}]
        return str(ingress[0].get("ip") or "") or None

    at = until("an address", address)
    line = ["curl", "-sS", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}", f"http://{at}/productpage"]

    def page() -> bool:
        return subprocess.run(line, check=False, capture_output=True, text=True).stdout == "200"

    assert until("a page through the gateway", page)


def test_the_whole_fleet_is_synced_over_all_replicas(mesh: Cluster) -> None:
    def synced() -> dict[str, Any] | None:
        found = proxies(mesh)
        is_whole = len(found) >= 9 and all(one["isSynced"] for one in found.values())
        return found if is_whole else None

    found = until("all proxies in sync", synced, 60)
    accounts = {one["identity"].rpartition("/")[2] for one in found.values()}
    assert {"bookinfo-productpage", "bookinfo-bot", "istio-ingressgateway"} <= accounts
    assert all(one["transport"] == "tls" for one in found.values())


def test_an_edit_is_live_on_all_of_them(mesh: Cluster) -> None:
    said = tulle(mesh, "apply", "--mesh", "kube", "-f", str(EXAMPLE / "edits" / "reviews-v3.yaml")).stdout
    assert re.search(r"live on (\d+) of \1 prox(?:y|ies) in \d+ ms", said), said
    until("only v3", lambda: re.search(r"reviews v3:\d+;", logs(mesh, "bot", since="5s")), 60)
    tulle(mesh, "apply", "--mesh", "kube", "-f", str(EXAMPLE / "routing.yaml"))


def test_objects_say_what_became_of_them(mesh: Cluster) -> None:
    def accepted() -> bool:
        found = mesh.get("virtualservice", "reviews", "-n", "bookinfo").get("status") or {}
        return any(one["type"] == "Accepted" and one["status"] == "True" for one in found.get("conditions") or ())

    assert until("a condition", accepted, 60)


def test_what_cannot_be_is_refused_with_its_code(mesh: Cluster) -> None:
    bad = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: bad, namespace: bookinfo}
spec: {hosts: [reviews], http: [{route: [{destination: {host: reviews}, weight: -5}]}]}
"""
    with pytest.raises(subprocess.CalledProcessError) as refused:
        mesh.apply(bad, "--validate=false")
    assert "TUL0" in refused.value.stderr or "weight" in refused.value.stderr, refused.value.stderr


def test_a_job_ends_though_it_has_a_sidecar(mesh: Cluster) -> None:
    mesh.apply(JOB)
    mesh.wait("--for=condition=Complete", "job/once", "-n", "bookinfo", limit_s=PATIENCE_S)


def test_a_control_plane_pod_dies_and_nobody_notices(mesh: Cluster) -> None:
    before = {pod["metadata"]["name"] for pod in pods(mesh, "tulle-system")}
    read = len(logs(mesh, "bot").splitlines())  # what a machine out of breath did at the start is not this test's
    victim = min(before)
    mesh.kubectl("delete", "pod", victim, "-n", "tulle-system", "--grace-period=0", "--force")
    until("another in its place", lambda: {pod["metadata"]["name"] for pod in pods(mesh, "tulle-system")} - before)
    failures = [line for line in logs(mesh, "bot").splitlines()[read:] if "[bot" in line and " 0 failed" not in line]
    assert not failures, failures
    mesh.wait("--for=condition=Available", "deploy/tulled", "-n", "tulle-system", limit_s=PATIENCE_S)
