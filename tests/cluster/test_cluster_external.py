"""Cases 09 and 10 in a real cluster: the rows of the local run, with a pod outside the mesh for the machine out there."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import external_rows as rows
import pytest
from case_sets import Cases
from certificates import self_signed, tls_secret
from clients import Client
from kubelab.cluster import Cluster
from mesh_parts import LITTLE, PATIENCE_S, mesh_in, tulle, until
from prometheus_client.parser import text_string_to_metric_families

pytestmark = [pytest.mark.cluster, pytest.mark.long]

TESTS = Path(__file__).resolve().parents[1]
IMAGE = "tulle/bookinfo:dev"
"""Python."""
WORLD = "world"
PROGRAMS = {"name": "programs", "configMap": {"name": "programs"}}
MOUNTED = {"name": "programs", "mountPath": "/programs"}
METRICS = (
    "import urllib.request; "
    "print(urllib.request.urlopen('http://127.0.0.1:15090/stats/prometheus', timeout=10).read().decode())"
)


@pytest.fixture(scope="module")
def installed(cluster: Cluster) -> Iterator[Cluster]:
    """A mesh in which a host without an entry is nowhere."""
    settings = ("--set=mesh.registryOnly=true", "--set=mesh.accessLog=all")
    with mesh_in(cluster, *LITTLE, *settings, images=("bookinfo",)):
        yield cluster


class Outside:
    """The caller's names are those of its hosts file, which kubelet writes for its proxy, too."""

    def __init__(self, cluster: Cluster, ns: str, control: Path, certificate: bytes) -> None:
        self.cluster = cluster
        self.certificate = certificate
        self._ns = ns
        self._control = control

    @property
    def caller(self) -> Client:
        return Client(self._control / "caller.sock").wait()

    @property
    def there(self) -> str:
        return str(self.cluster.get("pod", "there", "-n", WORLD)["status"]["podIP"])

    def apply(self, manifest: str) -> str:
        done = tulle(self.cluster, "apply", "--mesh", "kube", "-f", "-", text=manifest)
        return done.stdout + done.stderr

    def delete(self, kind: str, name: str, ns: str) -> None:
        self.cluster.kubectl("delete", kind, name, "-n", ns, "--ignore-not-found")

    def metrics(self, name: str) -> Iterable[tuple[dict[str, str], float]]:
        said = self.cluster.kubectl("exec", "-n", self._ns, "caller", "-c", "app", "--", "python", "-c", METRICS)
        for family in text_string_to_metric_families(said):
            yield from ((one.labels, one.value) for one in family.samples if one.name == name)

    def logged(self, **fields: str) -> dict[str, Any]:
        def newest() -> dict[str, Any] | None:
            said = self.cluster.kubectl("logs", "-n", self._ns, "caller", "-c", "istio-proxy", "--tail=400")
            lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
            return next((one for one in reversed(lines) if fields.items() <= one.items()), None)

        return until(f"a line with {fields}", newest, 20)


@pytest.fixture(scope="module")
def outside(installed: Cluster, cases: Cases) -> Iterator[Outside]:
    ns, control = cases.breaker_namespace, installed.layout.folder / "control"
    control.mkdir(exist_ok=True)
    certificate, key = self_signed(cases.external)
    files = [f"--from-file={path}" for path in sorted((TESTS / "mesh" / "programs").glob("*.py"))]
    try:
        for name, labels in ((ns, {"istio-injection": "enabled"}), (WORLD, {})):
            space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
            installed.apply(json.dumps(space))
            programs = ("create", "configmap", "programs", "-n", name, *files, "--dry-run=client", "-o", "yaml")
            installed.apply(installed.kubectl(*programs))
        installed.apply(json.dumps(tls_secret("there", WORLD, certificate, key)))
        serving = ["--version", "there", "--http", "80", "--tcp", "7000", "--tls", "443:/tls/tls.crt:/tls/tls.key"]
        tls = {"name": "tls", "secret": {"secretName": "there"}}
        installed.apply(pod("there", WORLD, ["echo.py", *serving], tls, "/tls"))
        installed.wait("--for=condition=Ready", "pod/there", "-n", WORLD, limit_s=PATIENCE_S)
        found = Outside(installed, ns, control, certificate)
        aliases = [{"ip": found.there, "hostnames": [cases.external, rows.UNLISTED]}]
        steering = {"name": "control", "hostPath": {"path": str(control)}}
        asking = ["requester.py", "/control/caller.sock"]
        installed.apply(pod("caller", ns, asking, steering, "/control", hostAliases=aliases))
        installed.wait("--for=condition=Ready", "pod/caller", "-n", ns, limit_s=PATIENCE_S)
        yield found
    finally:
        installed.kubectl("delete", "ns", ns, WORLD, "--ignore-not-found", limit_s=180)
        for left in control.iterdir():
            left.unlink()


def pod(name: str, ns: str, words: list[str], volume: dict[str, Any], place: str, **spec: Any) -> str:
    """One of the programs in a pod."""
    container = {
        "name": "app",
        "image": IMAGE,
        "securityContext": {"runAsUser": 0},
        "command": ["python", f"/programs/{words[0]}", *words[1:]],
        "volumeMounts": [MOUNTED, {"name": volume["name"], "mountPath": place}],
    }
    found = {"terminationGracePeriodSeconds": 2, "containers": [container], "volumes": [PROGRAMS, volume], **spec}
    meta = {"name": name, "namespace": ns, "labels": {"app": name, "version": "v1"}}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": found})


def test_10_is_reached_by_dns_and_sni_and_others_are_not(outside: Outside, cases: Cases) -> None:
    rows.reached_by_dns_and_sni_and_others_are_not(outside, cases)


def test_09_limits_and_ejects_over_http(outside: Outside, cases: Cases) -> None:
    rows.limits_and_ejects_over_http(outside, cases)


def test_09_with_10_hold_together(outside: Outside, cases: Cases) -> None:
    rows.hold_together(outside, cases)
