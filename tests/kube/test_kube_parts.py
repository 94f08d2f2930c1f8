"""The table of what is served, paths, the token bucket, and that a local run loads no Kubernetes client."""

import json
import subprocess
import sys

import pytest

from tulle.kube.discovery import Resource, chosen, table_of
from tulle.kube.errors import Refused
from tulle.kube.writing import Bucket


def served(resource: str, kind: str, *, scope: str = "Namespaced", verbs: tuple[str, ...] = ("list", "watch")) -> dict:
    return {
        "resource": resource,
        "responseKind": {"group": "", "version": "", "kind": kind},
        "scope": scope,
        "verbs": verbs,
    }


def document(group: str, **versions: list[dict]) -> bytes:
    of_group = [{"version": version, "resources": resources} for version, resources in versions.items()]
    return json.dumps({"items": [{"metadata": {"name": group}, "versions": of_group}]}).encode()


def test_the_table_knows_plural_scope_and_version() -> None:
    table = table_of(
        document(
            "",
            v1=[served("namespaces", "Namespace", scope="Cluster"), served("bindings", "Binding", verbs=("create",))],
        ),
        document("networking.istio.io", v1=[served("gateways", "Gateway")], v1beta1=[served("gateways", "Gateway")]),
    )
    assert ("", "Binding") not in table
    assert chosen(table, "", "Namespace", ("v1",)) == Resource("", "v1", "namespaces", "Namespace", is_namespaced=False)
    assert chosen(table, "networking.istio.io", "Gateway", ("v1beta1", "v1")) == Resource(
        "networking.istio.io", "v1beta1", "gateways", "Gateway"
    )
    assert chosen(table, "networking.istio.io", "Gateway", ("v2",)) is None
    assert chosen(table, "gateway.networking.k8s.io", "Gateway", ("v1",)) is None


def test_paths() -> None:
    pods = Resource("", "v1", "pods", "Pod")
    routes = Resource("networking.istio.io", "v1", "virtualservices", "VirtualService")
    namespaces = Resource("", "v1", "namespaces", "Namespace", is_namespaced=False)
    assert pods.path() == "/api/v1/pods"
    assert routes.path("a", "b", "status") == "/apis/networking.istio.io/v1/namespaces/a/virtualservices/b/status"
    assert namespaces.path("ignored", "a") == "/api/v1/namespaces/a"


@pytest.mark.parametrize(
    ("status", "is_denied", "is_absent"),
    [(401, True, False), (403, True, False), (404, False, True), (500, False, False)],
)
def test_a_refusal_says_what_is_missing(status: int, *, is_denied: bool, is_absent: bool) -> None:
    refused = Refused("GET", "/api/v1/pods", status, "", "no")
    assert (refused.is_denied, refused.is_absent) == (is_denied, is_absent)
    assert (refused.problem().code == "TUL1003") is is_denied


def test_a_bucket_gives_its_burst_at_once_and_then_its_rate() -> None:
    bucket, waits = Bucket(10.0, 5.0, 5.0, at=0.0), []
    for _ in range(8):
        bucket, wait = bucket.taken(0.0)
        waits.append(round(wait, 6))
    assert waits == [0, 0, 0, 0, 0, 0.1, 0.2, 0.3]


def test_a_bucket_fills_no_further_than_its_burst_and_ignores_a_clock_that_goes_back() -> None:
    bucket, _ = Bucket(10.0, 5.0, 0.0, at=0.0).taken(1000.0)
    assert bucket.tokens == 4.0
    again, wait = bucket.taken(900.0)
    assert (again.tokens, wait, again.at) == (3.0, 0.0, 1000.0)


def test_a_local_run_loads_no_kubernetes_client() -> None:
    program = "import sys, tulle.app.control, tulle.cli; print(sorted({'lightkube', 'httpx2'} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
