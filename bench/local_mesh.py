"""A mesh as a user starts it (`tulle up`), and programs of ours beside its sidecars: in a pod's network, seen from the host."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

from bench.building import CannotMeasureError
from bench.machine import ROOT

Object = dict[str, Any]
TULLE = Path(sys.executable).parent / "tulle"
READY_SECONDS = 60.0
PROXY = "istio-proxy"


class Pod(NamedTuple):
    """One pod that runs."""

    address: str
    app: int
    """Process of its workload."""
    sidecar: int
    """Process of its sidecar; 0 without one."""
    admin: Path


class LocalMesh:
    """A running mesh."""

    def __init__(self, name: str) -> None:
        self.name = name

    def pod(self, namespace: str, app: str) -> Pod:
        """The pod of an application. Raises CannotMeasureError."""
        for item in json.loads(tulle("ps", "--mesh", self.name, "-o", "json"))["items"]:
            if (item["namespace"], item["labels"].get("app")) == (namespace, app):
                pids = item["pids"]
                return Pod(item["ip"], pids.get("app", 0), pids.get(PROXY, 0), Path(item.get("admin") or "/"))
        raise CannotMeasureError(f"no pod of {namespace}/{app}")

    @property
    def run(self) -> Path:
        """Where its sockets are."""
        root = Path(os.environ["XDG_RUNTIME_DIR"]) / "tulle" if "XDG_RUNTIME_DIR" in os.environ else None
        return (root or Path(f"/tmp/tulle-{os.getuid()}")) / self.name

    def service_address(self, namespace: str, name: str) -> str:
        """The virtual address of a Service. Raises CannotMeasureError."""
        for item in json.loads((self.run / "runtime.json").read_text())["items"]:
            found = item["metadata"]
            if item["kind"] == "Service" and (found["namespace"], found["name"]) == (namespace, name):
                return str(item["spec"]["clusterIP"])
        raise CannotMeasureError(f"no Service {namespace}/{name}")

    def exposed(self) -> str:
        """The mesh's metrics, the control plane's among them."""
        noted = self.run / "metrics-port"
        deadline = time.monotonic() + 10
        while not noted.exists() and time.monotonic() < deadline:
            time.sleep(0.05)  # proxies are served first
        port = noted.read_text()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            return str(answer.read().decode())

    def metric(self, name: str) -> float:
        """One of them, over its labels."""
        return total(self.exposed(), name)


def total(exposed: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples with these labels, in Prometheus' text."""
    chosen = (line for line in exposed.splitlines() if line.startswith((f"{name}{{", f"{name} ")))
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    return sum(float(line.rpartition(" ")[2]) for line in chosen if all(one in line for one in wanted))


def asked(admin: Path, path: str) -> str:
    """What an Envoy answers on its admin pipe."""
    connection = HTTPConnection("localhost", timeout=30)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(30)
    try:
        connection.sock.connect(str(admin))
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def tulle(*words: str | Path, timeout: float = 120, **environ: str) -> str:
    """A command of the product. Raises CannotMeasureError with what it said."""
    line = [str(TULLE), *map(str, words)]
    environment = {**os.environ, **environ}
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=timeout, cwd=ROOT, env=environment)
    if done.returncode:
        raise CannotMeasureError(f"tulle {words[0]}: {(done.stderr or done.stdout).strip()[-600:]}")
    return done.stdout


@contextmanager
def local_mesh(folder: Path, settings: Object | None = None, patience: float = READY_SECONDS) -> Iterator[LocalMesh]:
    """Run the manifests of a folder until the end of the block. Raises CannotMeasureError."""
    mesh = LocalMesh(f"bench-{secrets.token_hex(3)}")
    given = folder.parent / f"{folder.name}-settings.json"
    given.write_text(json.dumps(settings or {}))
    words = ("--name", mesh.name, "--detach", "--timeout", str(patience), "--settings", given)
    try:
        # its CA and addresses are nobody's business afterwards
        tulle("up", folder, *words, timeout=patience + 30, XDG_STATE_HOME=str(folder.parent / "state"))
        yield mesh
    finally:
        subprocess.run([TULLE, "down", "--name", mesh.name], capture_output=True, check=False, timeout=60, cwd=ROOT)


def inside(pod: Pod, words: Sequence[str | Path], guide: int = 0) -> list[str]:
    """A command line that runs in a pod's network and sees this machine's processes.

    Without root the way in leads over the user namespace of a sidecar of the same mesh: `guide`, a process.
    """
    user = [] if os.geteuid() == 0 else [f"--user=/proc/{guide or pod.sidecar}/ns/user", "--preserve-credentials"]
    return ["nsenter", *user, f"--net=/proc/{pod.app or pod.sidecar}/ns/net", "--", *map(str, words)]


def wait_until_listening(pod: Pod, port: int, guide: int = 0, seconds: float = 10) -> None:
    """Return when somebody accepts at a port in a pod's network. Raises CannotMeasureError."""
    question = f"import socket; socket.create_connection(('{pod.address}', {port}), 1).close()"
    deadline = time.monotonic() + seconds
    while subprocess.run(
        inside(pod, [sys.executable, "-c", question], guide), capture_output=True, check=False
    ).returncode:
        if time.monotonic() > deadline:
            raise CannotMeasureError(f"nobody listens at {pod.address}:{port}")


# --- manifests -----------------------------------------------------------------------------------------------------------


def namespace(name: str, *, has_sidecars: bool = True, **annotations: str) -> Object:
    """A namespace, with or without sidecars."""
    labels = {"istio-injection": "enabled"} if has_sidecars else {}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": labels, "annotations": annotations},
    }


def deployment(app: str, ns: str, command: Sequence[str], ports: Sequence[int] = (), **annotations: str) -> Object:
    """One pod of one container, ready when its first port accepts."""
    container: Object = {"name": "app", "image": "example.org/bench:1", "command": list(command)}
    if ports:
        container["ports"] = [{"containerPort": number} for number in ports]
        container["readinessProbe"] = {"tcpSocket": {"port": ports[0]}, "periodSeconds": 1}
    template = {"metadata": {"labels": {"app": app}, "annotations": annotations}, "spec": {"containers": [container]}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": app}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": app, "namespace": ns}, "spec": spec}


def service(name: str, ns: str, app: str, ports: Sequence[tuple[str, int, int]]) -> Object:
    """A Service; ports are (name, number, of the pod)."""
    numbers = [{"name": word, "port": number, "targetPort": target} for word, number, target in ports]
    spec = {"selector": {"app": app}, "ports": numbers}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": ns}, "spec": spec}
