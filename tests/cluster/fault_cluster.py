"""A mesh in a cluster under constant load, and windows of it; the load, its rows and its table are those of `tests/faults`.

What is seen comes from the API, the process table of this machine (nodes are namespaces of it), Envoy's admin sockets and the client's
own count.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import kube_shapes as shapes
from fault_rows import Line, Row, counted, is_complete, table
from fault_window import Window, read_lines
from kubelab.api import Api
from kubelab.cluster import Cluster

from tulle.telemetry import pipe

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "tests" / "faults"
NS, SYSTEM, FRONT = shapes.NS, "tulle-system", "istio-system"
RATE = float(os.environ.get("TULLE_FAULT_RATE", "25"))
LEAF_S = 80
"""Life of a certificate: renewed after 40 to 64 s, so that every pod's falls into a minute without the API."""
LATE_S = 40.0
CALM_WITHIN_S = 40.0
PATIENCE_S = 240.0
IMAGES = ("control-plane", "proxy", "capture", "bookinfo", "test")
INSTALL = (
    "--profile=default",
    "--set=image.tag=dev",
    "--set=controlPlane.autoscaling.enabled=false",
    "--set=controlPlane.resources.requests.cpu=10m",
    "--set=ingress.replicas=2",
    "--set=ingress.resources.requests.cpu=10m",
    "--set=mesh.defaultRetryAttempts=0",
    f"--set=mesh.leafTtlSeconds={LEAF_S}",
    "--set=mesh.maxConnectionAgeSeconds=10",
    "--set=mesh.bundleSettleSeconds=120",
    "--set=injection.tokenSeconds=600",
)
T = TypeVar("T")
Fault = Callable[["FaultCluster", Window], str]


class FaultCluster:
    """Two nodes with tulle, a service of two replicas, an ingress gateway of two, and the load."""

    def __init__(self, cluster: Cluster, rate: float = RATE) -> None:
        self.cluster = cluster
        self.rate = rate
        self.control = cluster.layout.folder / "control"
        self._api = Api(cluster.layout)

    # --- up and down -------------------------------------------------------------------------------------------------

    def install(self) -> None:
        """Everything ready, and the load at its rate."""
        cluster = self.cluster
        cluster.load(*IMAGES)
        self._keep_names()
        self.tulle("install", *INSTALL, "--wait=240s", "--yes")
        self.control.mkdir(exist_ok=True)
        self.control.chmod(0o777)
        for left in self.control.iterdir():
            left.unlink()
        cluster.apply(
            f"{{apiVersion: v1, kind: Namespace, metadata: {{name: {NS}, labels: {{istio-injection: enabled}}}}}}"
        )
        files = [f"--from-file={PROGRAMS / name}" for name in ("load.py", "server.py")]
        programs = cluster.kubectl(
            "create", "configmap", "programs", "-n", NS, *files, "--dry-run=client", "-o", "yaml"
        )
        cluster.apply(programs)
        cluster.apply(shapes.mesh(self.rate, str(self.control)))
        for space in (NS, FRONT, SYSTEM):
            cluster.wait("--for=condition=Available", "deploy", "--all", "-n", space, limit_s=PATIENCE_S)
        self.warm()

    def _keep_names(self) -> None:
        """The one CoreDNS that there is to the node that is not drained: its going away is not what is tried."""
        place = '{"spec": {"template": {"spec": {"nodeSelector": {"kubernetes.io/hostname": "node1"}}}}}'
        self.cluster.kubectl("patch", "deploy", "coredns", "-n", "kube-system", "-p", place)
        self.until("no names", lambda: self.is_available("coredns", "kube-system"), 120)

    def attach(self) -> None:
        """What an earlier run left standing: for the inner loop."""
        self.warm()

    def remove(self) -> None:
        """All of it."""
        self.cluster.kubectl("delete", "ns", NS, "--ignore-not-found", limit_s=180)
        self.tulle("uninstall", "--purge", "--yes")
        self.cluster.kubectl("delete", "ns", FRONT, "--ignore-not-found", limit_s=180)

    # --- commands ----------------------------------------------------------------------------------------------------

    def tulle(self, *words: str) -> str:
        """stdout of the CLI; it must end well."""
        env = {**os.environ, "KUBECONFIG": str(self.cluster.kubeconfig)}
        line = [sys.executable, "-m", "tulle", *words]
        done = subprocess.run(line, check=False, capture_output=True, text=True, timeout=300, env=env)
        assert done.returncode == 0, f"tulle {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def read(self, path: str) -> dict[str, Any]:
        """An object or a list of the API. Not by kubectl: asked again and again, that would be most of the machine's work.

        Raises ConnectionError.
        """
        for _ in range(3):
            if (text := self._api.get(path)) is not None:
                return dict(json.loads(text))
            time.sleep(0.3)
        raise ConnectionError(path)

    def pods_of_all(self, app: str, space: str = NS) -> list[dict[str, Any]]:
        """Those that are leaving, and those that are over, included."""
        return list(self.read(f"/api/v1/namespaces/{space}/pods?labelSelector=app%3D{app}")["items"])

    def pods(self, app: str, space: str = NS) -> list[dict[str, Any]]:
        """Running ones that are not leaving, by name."""
        found = self.pods_of_all(app, space)
        living = [
            one for one in found if "deletionTimestamp" not in one["metadata"] and one["status"]["phase"] == "Running"
        ]
        return sorted(living, key=lambda one: str(one["metadata"]["name"]))

    def replicas(self, revision: str = "default") -> list[dict[str, Any]]:
        """Control planes of a revision."""
        return [one for one in self.pods("tulled", SYSTEM) if one["metadata"]["labels"].get("istio.io/rev") == revision]

    def lead(self, revision: str = "") -> str:
        """The pod that leads."""
        name = f"tulled-leader{revision and '-' + revision}"
        lease = self.read(f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/{name}")
        return str(lease["spec"]["holderIdentity"]).rpartition("-")[0]

    @contextmanager
    def admin(self, pod: str) -> Iterator[Callable[..., Any]]:
        """The admin API of a control plane's pod, in the network of its node: `ask(path, method)`."""
        pid = self.process(pod)
        line = ["nsenter", f"--net=/proc/{pid}/ns/net", "curl", "-sf", "-m", "10"]

        def ask(path: str, method: str = "GET") -> Any:
            done = subprocess.run(
                [*line, "-X", method, f"http://127.0.0.1:15014{path}"], check=True, capture_output=True, text=True
            )
            return json.loads(done.stdout or "null")

        yield ask

    def process(self, pod: str) -> int:
        """Pid, on this machine, of a control plane's process."""
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if b"tulle.app.cluster" not in (entry / "cmdline").read_bytes():
                    continue
                if f"POD_NAME={pod}\0".encode() in (entry / "environ").read_bytes():
                    return int(entry.name)
        raise ProcessLookupError(pod)

    def envoy(self, uid: str) -> int:
        """Pid, on this machine, of the proxy of a pod."""
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes()
                if words.startswith(b"/usr/local/bin/envoy\0") and uid.encode() in words:
                    return int(entry.name)
        raise ProcessLookupError(uid)

    def ask_envoy(self, uid: str, path: str) -> Any:
        """A JSON answer of a proxy's admin socket."""
        socket = Path(f"/proc/{self.envoy(uid)}/root/run/tulle/envoy/admin.sock")
        return json.loads(pipe.ask(socket, "GET", path, timeout_s=10.0).body)

    def certificates(self, uid: str) -> dict[str, set[str]]:
        """Serials that a live proxy has: `leaf` and `roots`."""
        found: dict[str, set[str]] = {"leaf": set(), "roots": set()}
        for entry in self.ask_envoy(uid, "/certs")["certificates"]:
            if entry.get("cert_chain"):
                found["leaf"] |= {one["serial_number"] for one in entry["cert_chain"]}
                found["roots"] |= {one["serial_number"] for one in entry.get("ca_cert", ())}
        return found

    def proxies(self, revision: str = "default") -> dict[str, dict[str, Any]]:
        """By id, of all replicas of a revision that answer: those that are connected."""
        found = {}
        for pod in self.replicas(revision):
            with (
                suppress(subprocess.CalledProcessError, ProcessLookupError),
                self.admin(pod["metadata"]["name"]) as ask,
            ):
                found |= {one["id"]: one for one in ask("/v1/proxies")["proxies"] if one["connectedAt"]}
        return found

    def until(self, words: str, holds: Callable[[], T], seconds: float = PATIENCE_S) -> T:
        """Its first answer that counts."""
        deadline = time.monotonic() + seconds
        said = ""
        while time.monotonic() < deadline:
            try:
                if found := holds():
                    return found
            except (OSError, subprocess.SubprocessError, LookupError) as error:
                said = f" ({error})"
            time.sleep(1.0)
        raise AssertionError(f"{words}: not within {seconds:.0f} s{said}")

    def is_available(self, deployment: str, space: str = NS) -> bool:
        """Whether a Deployment is as its spec says, nothing of an earlier one left."""
        found = self.read(f"/apis/apps/v1/namespaces/{space}/deployments/{deployment}")
        status, wanted = found["status"], found["spec"]["replicas"]
        return bool(
            status.get("observedGeneration") == found["metadata"]["generation"]
            and status.get("updatedReplicas", 0)
            == status.get("availableReplicas", 0)
            == status.get("replicas")
            == wanted
        )

    # --- the load ----------------------------------------------------------------------------------------------------

    def lines(self) -> list[Line]:
        """What the load wrote until now."""
        return read_lines(self.control / "load.jsonl")

    def warm(self) -> None:
        """Until the load runs at its rate and both streams talk."""

        def is_warm() -> bool:
            found = self.lines()
            return bool(
                found and found[-1]["sent"] >= self.rate * 0.9 and all(one["echoes"] for one in found[-1]["streams"])
            )

        self.until("no load", is_warm, 90)

    def calm(self) -> None:
        """Wait, if not for ever, until nothing of an earlier fault is left."""
        deadline = time.monotonic() + CALM_WITHIN_S
        while time.monotonic() < deadline:
            last = self.lines()[-1]
            if time.time() - last["at"] < 4 and not last["failed"] and sorted(last["ms"])[len(last["ms"]) // 2] < 100:
                return
            time.sleep(0.5)

    def slow_to(self, rate: float) -> None:
        """Another rate from now on."""
        fresh = self.control / "load.new"
        fresh.write_text(json.dumps({"rate": rate}))
        fresh.replace(self.control / "load.json")
        time.sleep(1.5)

    def row(self, name: str, fault: Fault, seconds: int, *, streams_may_end: bool = False) -> Row:
        """One window with one fault in it."""
        self.calm()
        window = Window(seconds)
        time.sleep(max(0.0, window.begin - time.time()))
        proof = fault(self, window)
        seconds = self._over(window)
        found = counted(self._until(window.end), window.begin, window.end)
        return Row(name, window.when, proof, seconds, found, streams_may_end=streams_may_end)

    def row_outside(self, name: str, fault: Fault, seconds: int, *, streams_may_end: bool = False) -> Row:
        """The same, with the counted load coming from outside of the cluster through the gateway; inside it goes on at a tenth."""
        self.calm()
        self.slow_to(self.rate / 10)
        out = self.control / "outside.jsonl"
        out.unlink(missing_ok=True)
        url = f"http://{shapes.HOST}@{self.front()}:80/"
        env = {"LOAD_TARGETS": url, "LOAD_OUT": str(out), "LOAD_RATE": str(self.rate), "LOAD_SECONDS": "0"}
        line = [sys.executable, str(PROGRAMS / "load.py")]
        caller = subprocess.Popen(line, env={**os.environ, **env})
        try:
            self.until("the gateway answers", lambda: out.exists() and read_lines(out), 60)
            window = Window(seconds)
            time.sleep(max(0.0, window.begin - time.time()))
            proof = fault(self, window)
            seconds = self._over(window)
            time.sleep(2.0)
        finally:
            caller.terminate()
            caller.wait(30)
            self.slow_to(self.rate)
        found = counted(read_lines(out), window.begin, window.end)
        row = Row(name, window.when, proof, seconds, found, streams_may_end=streams_may_end)
        row.beside = counted(self._until(window.end), window.begin, window.end)
        return row

    def front(self) -> str:
        """The gateway's address."""
        service = self.read(f"/api/v1/namespaces/{FRONT}/services/istio-ingressgateway")
        return str(service["status"]["loadBalancer"]["ingress"][0]["ip"])

    def _over(self, window: Window) -> int:
        """Wait for the end; a fault that took longer than was thought has a longer window."""
        window.end = max(window.end, int(time.time()) + 3)
        time.sleep(max(0.0, window.end - time.time()))
        return window.end - window.begin

    def _until(self, end: int) -> list[Line]:
        deadline = time.monotonic() + LATE_S
        while not is_complete(found := self.lines(), end):
            assert time.monotonic() < deadline, "the load stopped writing"
            time.sleep(0.2)
        return found


def told(rows: list[Row], commit: str, path: Path | None) -> str:
    """The table; with a path it is kept there as Markdown."""
    text = table(rows)
    if path is not None:
        path.write_text(_page(rows, commit))
    return text


def head() -> str:
    """The checkout's commit; what is uncommitted has no name."""
    git = ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"]
    return subprocess.run(git, check=True, capture_output=True, text=True).stdout.strip()


def _page(rows: list[Row], commit: str) -> str:
    text = f"""# Faults in a cluster

Written by `make cluster-faults`, {dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC, commit {commit}.

Two nodes on one machine of {os.cpu_count()} cores, two replicas of the control plane, STRICT, certificates of {LEAF_S} s, retries of the mesh
off. {RATE:.0f} requests/s are sent open-loop by a pod (rows "outside": by a caller beyond the load balancer), half of them on connections of
their own, and never tried again; a TCP and a gRPC stream say ten words a second. *Failed* is every request without its own right
answer within 10 s. Where pods end, streams that lead to them may end; to begin one anew is a new request and must not fail.

| fault | seconds | at second | proof that it happened | requests | on new connections | failed | p50 / p99 / max ms | words tcp/grpc | streams ended |
|---|---|---|---|---|---|---|---|---|---|
"""
    return text + "".join(f"{_line(row)}\n" for row in rows)


def _line(row: Row) -> str:
    found, streams = row.counted, row.beside or row.counted
    echoes = "/".join(str(streams.echoes[kind]) for kind in ("tcp", "grpc") if kind in streams.echoes)
    cells = (
        row.fault,
        row.seconds,
        ", ".join(f"{moment:.0f}" for moment in row.when),
        row.proof,
        found.requests + (row.beside.requests if row.beside else 0),
        found.new + (row.beside.new if row.beside else 0),
        found.failed + (row.beside.failed if row.beside else 0),
        f"{found.quantile(0.5):.1f} / {found.quantile(0.99):.1f} / {max(found.ms, default=0):.0f}",
        echoes,
        f"{len(streams.breaks)}, {len(streams.unopened)} not begun anew at once" if streams.breaks else "none",
    )
    return "| " + " | ".join(str(cell).replace("|", "/") for cell in cells) + " |"
