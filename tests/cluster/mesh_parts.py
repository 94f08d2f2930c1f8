"""What tests of an installed mesh share: the command line at their cluster, patience, what is there, small workloads."""

import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, TypeVar

import pytest
from kubelab.cluster import Cluster

PATIENCE_S = 240.0
LITTLE = (
    "--profile=minimal",
    "--set=image.tag=dev",
    "--set=controlPlane.autoscaling.enabled=false",
    "--set=controlPlane.replicas=1",
    "--set=controlPlane.disruptionBudget=false",
)
"""One replica: the machine is shared."""
OF_THE_CLUSTER = (
    "events",
    "events.events.k8s.io",
    "leases.coordination.k8s.io",
    "endpointslices.discovery.k8s.io",
    "apiservices.apiregistration.k8s.io",
)
"""What the cluster makes of its own; an APIService belongs to its definition."""
T = TypeVar("T")


def tulle(cluster: Cluster, *words: str, code: int = 0, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """A command that ends with this code, within bounds."""
    environment = {"KUBECONFIG": str(cluster.kubeconfig), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/root"}
    done = subprocess.run(
        [sys.executable, "-m", "tulle", *words],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S + 60,
        input=text,
        env=environment,
    )
    assert done.returncode == code, f"tulle {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done


@contextmanager
def mesh_in(
    cluster: Cluster, *settings: str, images: tuple[str, ...] = ("test",), spaces: Collection[str] = ()
) -> Iterator[str]:
    """A mesh, installed with these settings and ready while this is open; gives what `tulle install` said of its steps.

    `images`: loaded beside the mesh's own. `spaces`: namespaces that are deleted before the mesh is.
    """
    cluster.load("control-plane", "proxy", "capture", *images)
    said = tulle(cluster, "install", *settings, f"--wait={PATIENCE_S:.0f}s", "--yes").stderr
    try:
        yield said
    finally:
        if spaces:
            cluster.kubectl("delete", "ns", *spaces, "--ignore-not-found", limit_s=180)
        tulle(cluster, "uninstall", "--purge", "--yes")


def until(what: str, holds: Callable[[], T | None], patience_s: float = PATIENCE_S, *, step_s: float = 0.5) -> T:
    """The first answer that counts. Fails with the last complaint."""
    deadline, said = time.monotonic() + patience_s, "nothing"
    while time.monotonic() < deadline:
        try:
            found = holds()
            if found:
                return found
        except subprocess.CalledProcessError as error:
            said = f"{error} {error.stderr}"
        time.sleep(step_s)
    return pytest.fail(f"{what}: not within {patience_s:.0f} s; last error: {said}")


def listing(cluster: Cluster) -> set[str]:
    """Every object there is: `kind namespace/name`."""
    kinds = cluster.kubectl("api-resources", "--verbs=list", "-o", "name").split()
    asked = ",".join(kind for kind in kinds if kind not in OF_THE_CLUSTER)
    template = "{range .items[*]}{.kind} {.metadata.namespace}/{.metadata.name}{'\\n'}{end}"
    return set(cluster.kubectl("get", asked, "-A", "-o", f"jsonpath={template}", limit_s=120).splitlines())


def space(cluster: Cluster, name: str, labels: Mapping[str, str] = MappingProxyType({})) -> None:
    """A namespace."""
    words = ", ".join(f'"{key}": "{value}"' for key, value in labels.items())
    cluster.apply(f"{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {{{words}}}}}}}")


def caller(cluster: Cluster, namespace: str, name: str = "caller", **spec: str) -> None:
    """A pod with tools that waits; ready when this returns."""
    more = "".join(f"  {key}: {value}\n" for key, value in spec.items())
    cluster.apply(
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}}}}}\n"
        f"spec:\n  terminationGracePeriodSeconds: 0\n{more}"
        '  containers: [{name: caller, image: "tulle/test:dev", command: [sleep, "100000"]}]\n'
    )
    cluster.wait("--for=condition=Ready", f"pod/{name}", "-n", namespace, limit_s=PATIENCE_S)


def curl(cluster: Cluster, namespace: str, *words: str, pod: str = "caller") -> tuple[int, str]:
    """curl's exit code and what was said, from a pod with tools."""
    line = ["curl", "-sS", "-m", "10", *words]
    script = f"{shlex.join(line)}; code=$?; echo; echo ended $code"
    said = cluster.kubectl("exec", "-n", namespace, pod, "-c", "caller", "--", "sh", "-c", f"({script}) 2>&1")
    body, _, code = said.rpartition("ended ")
    return int(code), body.strip()


def pods_of(cluster: Cluster, namespace: str, selector: str = "") -> list[dict[str, Any]]:
    """Pods that are not on their way out."""
    found = cluster.get("pods", "-n", namespace, *(["-l", selector] if selector else []))["items"]
    return [one for one in found if "deletionTimestamp" not in one["metadata"]]
