"""The whole life of an installation in a real cluster: judged, installed, tagged, upgraded, removed without a trace."""

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest
import yaml
from kubelab.cluster import Cluster

from tulle.installing.crds import definitions

pytestmark = [pytest.mark.cluster, pytest.mark.long]

LITTLE = [
    "--profile=minimal",
    "--set=image.tag=dev",
    "--set=controlPlane.replicas=1",
    "--set=controlPlane.autoscaling.enabled=false",
    "--set=controlPlane.disruptionBudget=false",
]
"""One replica: the machine is shared."""
PASSED_OVER = (
    "events",
    "events.events.k8s.io",
    "leases.coordination.k8s.io",
    "endpointslices.discovery.k8s.io",
    "apiservices.apiregistration.k8s.io",
)
"""What the cluster makes of its own; an APIService belongs to its definition."""
PATIENCE = "--wait=240s"


def tulle(cluster: Cluster, *words: str, code: int = 0) -> tuple[str, str]:
    """stdout and stderr of a command that ends with this code."""
    line = [sys.executable, "-m", "tulle", *words, f"--kubeconfig={cluster.kubeconfig}"]
    done = subprocess.run(line, check=False, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout, done.stderr


def listing(cluster: Cluster) -> set[str]:
    """Every object there is: `kind namespace/name`."""
    kinds = cluster.kubectl("api-resources", "--verbs=list", "-o", "name").split()
    asked = ",".join(kind for kind in kinds if kind not in PASSED_OVER)
    template = "{range .items[*]}{.kind} {.metadata.namespace}/{.metadata.name}{'\\n'}{end}"
    return set(cluster.kubectl("get", asked, "-A", "-o", f"jsonpath={template}", limit_s=120).splitlines())


@pytest.fixture(scope="module")
def bare(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with our images and without an installation, before and after."""
    cluster.load("control-plane", "proxy", "capture")
    there, _ = tulle(cluster, "check", "--cluster", "-o", "json", code=1)
    assert "TUL1108" in there
    yield cluster
    subprocess.run(
        [sys.executable, "-m", "tulle", "uninstall", "--purge", "--yes", f"--kubeconfig={cluster.kubeconfig}"],
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="module")
def before(bare: Cluster) -> set[str]:
    return listing(bare)


def test_a_dry_run_changes_nothing(bare: Cluster, before: set[str]) -> None:
    said, _ = tulle(bare, "install", "--dry-run", "--set=image.tag=dev")
    assert "deployment/istio-ingressgateway created in istio-system (dry run)" in said
    assert listing(bare) == before


@pytest.fixture(scope="module")
def installed(bare: Cluster, before: set[str]) -> Cluster:
    """With one replica, ready."""
    _, said = tulle(bare, "install", *LITTLE, PATIENCE, "--yes")
    assert "control plane: ready" in said
    return bare


def test_it_is_ready_and_trusted(installed: Cluster) -> None:
    there, _ = tulle(installed, "check", "--cluster", "-o", "json")
    found = {one["description"]: one["result"] for part in json.loads(there)["categories"] for one in part["checks"]}
    assert found["all 1 replicas are ready"] == "success"
    assert found["the API server trusts its 2 webhooks"] == "success"


def test_applying_again_changes_nothing(installed: Cluster) -> None:
    _, said = tulle(installed, "install", *LITTLE, PATIENCE, "--yes")
    assert "created" not in said
    assert "configured" not in said
    assert "unchanged" in said


def test_upgrade_keeps_what_was_chosen(installed: Cluster) -> None:
    said, _ = tulle(installed, "upgrade", "--dry-run", "--set=mesh.registryOnly=true")
    assert "configmap/tulle configured in tulle-system (dry run)" in said
    # LITTLE is remembered: nothing else differs but the annotation of the settings on the pods.
    changed = [line.split()[0] for line in said.splitlines() if " configured" in line or " created" in line]
    assert changed == ["configmap/tulle", "deployment/tulled"]


def test_the_examples_are_accepted(installed: Cluster) -> None:
    """Every object of Istio's kinds in the examples passes the schemas and the webhook, strictly."""
    folder = files("tulle.examples.bookinfo")
    istio = [
        document
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
        for document in yaml.safe_load_all(entry.read_text())
        if document and ".istio.io/" in document["apiVersion"]
    ]
    assert len(istio) >= 5
    text = yaml.safe_dump_all([{**one, "metadata": {**one["metadata"], "namespace": "default"}} for one in istio])
    installed.apply(text, "--dry-run=server", "--validate=strict")


MISTAKE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: mistake, namespace: default}
spec: {hosts: [reviews], http: [{timeoutt: 5s, route: [{destination: {host: reviews}}]}]}
"""
OLD_VERSION = """
apiVersion: networking.istio.io/v1alpha3
kind: DestinationRule
metadata: {name: old, namespace: default}
spec: {host: reviews.default.svc.cluster.local, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}
"""


def test_a_slip_is_refused_and_every_version_is_served(installed: Cluster) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        installed.apply(MISTAKE, "--dry-run=server", "--validate=strict")
    assert "timeoutt" in refused.value.stderr
    installed.apply(OLD_VERSION)
    found = installed.kubectl("get", "dr", "old")
    assert "HOST" in found
    assert "reviews.default.svc.cluster.local" in found
    assert installed.get("destinationrules.v1.networking.istio.io", "old")["spec"]["host"].startswith("reviews.")
    installed.kubectl("delete", "dr", "old")


def may(cluster: Cluster, *words: str) -> bool:
    """What the control plane's account may, in the API server's own words."""
    done = subprocess.run(
        [
            str(cluster.kubernetes),
            "kubectl",
            f"--kubeconfig={cluster.kubeconfig}",
            "auth",
            "can-i",
            *words,
            "--as=system:serviceaccount:tulle-system:tulled",
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout.strip() == "yes"


def test_the_control_plane_may_what_it_needs_and_no_more(installed: Cluster) -> None:
    assert may(installed, "list", "pods", "-A")
    assert may(installed, "get", "secret/tulle-ca", "-n", "tulle-system")
    assert not may(installed, "get", "secrets", "-A")
    assert not may(installed, "get", "secrets", "-n", "default")
    assert not may(installed, "list", "secrets", "-n", "tulle-system")
    assert not may(installed, "create", "pods", "-n", "default")
    assert not may(installed, "patch", "configmap/other", "-n", "default")
    assert may(installed, "patch", "configmap/tulle-ca-root-cert", "-n", "default")
    assert not may(installed, "bind", "clusterrole/cluster-admin")
    assert not may(installed, "patch", "mutatingwebhookconfigurations/other")
    assert not may(installed, "delete", "namespaces")


def test_the_trust_root_is_everywhere_and_nothing_was_denied(installed: Cluster) -> None:
    installed.wait("--for=create", "configmap/tulle-ca-root-cert", "-n", "default", limit_s=60)
    log = installed.kubectl("logs", "-n", "tulle-system", "deploy/tulled")
    assert '"ready"' in log
    assert "403" not in log
    assert "not done yet" not in log, log


def image_of(cluster: Cluster, pod: str) -> list[str]:
    spec = cluster.get("pod", pod, "-n", "tag-space")["spec"]
    return [one["name"] for one in (*spec.get("initContainers", ()), *spec["containers"])]


POD = """
apiVersion: v1
kind: Pod
metadata: {name: NAME, namespace: tag-space}
spec: {containers: [{name: app, image: "tulle/test:dev", command: [sleep, "1000"]}]}
"""


def test_a_canary_and_its_tag(installed: Cluster) -> None:
    tulle(installed, "install", *LITTLE, PATIENCE, "--yes", "--revision=canary")
    try:
        tulle(installed, "uninstall", "--yes", code=2)  # several revisions: which one?
        installed.apply("{apiVersion: v1, kind: Namespace, metadata: {name: tag-space, labels: {istio.io/rev: prod}}}")
        tulle(installed, "tag", "set", "prod", "--revision=canary")
        _, refused = tulle(installed, "tag", "set", "prod", "--revision=default", code=1)
        assert "TUL1116" in refused
        listed, _ = tulle(installed, "tag", "list", "-o", "json")
        assert {"tag": "prod", "revision": "canary", "namespaces": ["tag-space"]} in json.loads(listed)
        installed.apply(POD.replace("NAME", "one"))
        assert "istio-proxy" in image_of(installed, "one")
        assert "tulled-canary" in json.dumps(installed.get("pod", "one", "-n", "tag-space"))
        _, refused = tulle(installed, "uninstall", "--revision=canary", "--yes", code=1)
        assert "TUL1118" in refused
        # and back
        tulle(installed, "tag", "set", "prod", "--revision=default", "--overwrite")
        installed.apply(POD.replace("NAME", "two"))
        assert "tulled-canary" not in json.dumps(installed.get("pod", "two", "-n", "tag-space"))
        assert "istio-proxy" in image_of(installed, "two")
        tulle(installed, "tag", "remove", "prod", "--force")
    finally:
        installed.kubectl("delete", "namespace", "tag-space", "--ignore-not-found", limit_s=120)
        tulle(installed, "uninstall", "--revision=canary", "--yes", "--force")
    there = listing(installed)
    assert not [one for one in there if "canary" in one]
    assert "Deployment tulle-system/tulled" in there


def test_one_that_does_not_start_says_why(installed: Cluster) -> None:
    """In the words of its last line, not only that the kubelet waits."""
    odd = '--set=controlPlane.arguments=["--nonsense"]'
    try:
        _, refused = tulle(installed, "install", *LITTLE, "--revision=broken", odd, "--wait=25s", "--yes", code=75)
        assert "TUL1109" in refused
        assert "--nonsense" in refused, refused
    finally:
        tulle(installed, "uninstall", "--revision=broken", "--yes", "--force")


OTHER = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: wasmplugins.extensions.istio.io, labels: {app: other-mesh}}
spec:
  group: extensions.istio.io
  scope: Namespaced
  names: {kind: WasmPlugin, listKind: WasmPluginList, plural: wasmplugins, singular: wasmplugin}
  versions:
  - name: v1beta9
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
"""


def test_nothing_stays(installed: Cluster, before: set[str]) -> None:
    tulle(installed, "uninstall", "--yes", "--wait=180s")
    kinds = {one for one in listing(installed) - before if one.startswith("CustomResourceDefinition ")}
    assert listing(installed) - before == kinds
    assert len(kinds) == len(definitions())
    tulle(installed, "uninstall", "--purge", "--yes", "--wait=180s")
    assert listing(installed) == before
    _, refused = tulle(installed, "uninstall", "--yes", code=1)
    assert "TUL1108" in refused


def test_what_belongs_to_others_stays(bare: Cluster, before: set[str]) -> None:
    """After `test_nothing_stays`: kinds of another mesh, and a namespace that is in use."""
    bare.apply(OTHER)
    bare.apply("{apiVersion: v1, kind: Namespace, metadata: {name: tulle-system}}")
    bare.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: mine, namespace: tulle-system}}")
    try:
        _, said = tulle(bare, "install", *LITTLE, "--wait=0s", "--yes")
        assert "TUL1113" in said
        assert "TUL1120" in said
        tulle(bare, "uninstall", "--purge", "--yes")
        assert bare.get("crd", "wasmplugins.extensions.istio.io")["metadata"]["labels"] == {"app": "other-mesh"}
        bare.get("configmap", "mine", "-n", "tulle-system")
    finally:
        bare.kubectl("delete", "namespace", "tulle-system", limit_s=120)
        bare.kubectl("delete", "crd", "wasmplugins.extensions.istio.io")
    assert listing(bare) == before


def test_without_a_cluster(tmp_path: Any) -> None:
    line = [sys.executable, "-m", "tulle", "install", "--yes", f"--kubeconfig={tmp_path / 'none'}"]
    done = subprocess.run(line, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 69
    assert "TUL1002" in done.stderr
